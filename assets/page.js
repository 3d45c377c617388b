// The little that a page must do by itself: language, light and dark, the keyboard, dropped files, looking at tiles.
(() => {
  const root = document.documentElement, { kept, random } = window.atelier;

  // Language: the artist's choice, else the browser's.
  const browserLanguage = (navigator.language || "en").toLowerCase().startsWith("zh") ? "zh" : "en";
  const speak = (language) => {
    root.dataset.lang = language;
    root.lang = language === "zh" ? "zh-CN" : "en";
    for (const one of document.querySelectorAll("[data-set-lang]"))
      one.setAttribute("aria-pressed", String(one.dataset.setLang === language));
    window.atelier.inWords(document);
  };
  const language = () => kept.get("lang") || browserLanguage;
  speak(language());

  // Light and dark: the artist's choice, else the system's, also when that changes.
  const system = matchMedia("(prefers-color-scheme: dark)");
  const paint = () => {
    const dark = kept.get("theme") ? kept.get("theme") === "dark" : system.matches;
    for (const one of [root, document.body]) if (one && one.classList.contains("dark") !== dark) one.classList.toggle("dark", dark);
  };
  paint();
  system.addEventListener("change", paint);
  new MutationObserver(paint).observe(document.body, { attributes: true, attributeFilter: ["class"] });

  // Gradio calls its places for files by an English name, whatever is written in them; they are called by what is written.
  const nameByWords = () => {
    for (const one of document.querySelectorAll("[aria-dropeffect][aria-label]")) if (one.textContent.trim()) one.removeAttribute("aria-label");
  };
  new MutationObserver(nameByWords).observe(document.body, { childList: true, subtree: true, attributes: true, attributeFilter: ["aria-label"] });

  Object.assign(window.atelier, {
    // Who is here, which job is being looked at and which engine was chosen last: asked once when the page opens, as is the
    // language, if it was chosen.
    async arrive() {
      const visitor = await window.atelier.known();
      speak(language());
      document.querySelector("#announce")?.setAttribute("aria-live", "polite");
      document.querySelector("#note")?.setAttribute("role", "status");
      const asked = new URLSearchParams(location.search), link = asked.get("r") || "";
      const job = link ? "" : asked.get("job") || kept.get("job"); // a link fills the form; nothing else is opened
      if (!job && !link) window.atelier.welcome();
      return [visitor, job, link, kept.get("engine")];
    },
    // The engine of Generate's form is another one now: its chip shows it. The style sheet shows what belongs to it.
    engine(name) {
      const choice = document.querySelector(`#engine input[value="${CSS.escape(name)}"]`);
      if (choice) choice.checked = true;
    },
    // Gradio's own labels come in the browser's language where it is one of these exactly; in another the server writes them.
    spoken: () => (language() === (/^zh-(CN|TW)$/.test(navigator.language) ? "zh" : "en") ? "" : language()),
    // The server answered. A job stays in the address and in the browser: a reload or a new tab finds it again. The value that
    // comes back is another one each time: its change makes the tab look.
    answered(job) {
      if (job) {
        kept.set("job", job);
        const address = new URL(location.href);
        address.searchParams.delete("r"); // the link has been used
        address.searchParams.set("job", job);
        history.replaceState(null, "", address);
      }
      return random(8);
    },
    roll: () => crypto.getRandomValues(new Uint32Array(1))[0],
    // The Models tab: looks again each second while a download runs; a card that was opened stays so. Answers may overtake
    // each other: a click's own answer goes first, and the page is looked at again after it, whatever it shows.
    models(element, trigger) {
      const opened = new Map(); // pack -> whether the artist opened its card
      let pressed = false, clicked = -Infinity;
      setInterval(() => {
        const page = element.querySelector("section"), since = performance.now() - clicked;
        if (!page || !element.offsetParent || since < 700 || !("watching" in page.dataset || since < 10_000)) return;
        trigger("click", { act: "watch", asked: page.dataset.asked, trouble: page.dataset.trouble });
      }, 1000);
      element.addEventListener("click", (event) => {
        const card = event.target.closest("summary")?.parentNode;
        if (card) opened.set(card.dataset.pack, !card.open);
        pressed ||= Boolean(event.target.closest("[data-act=fetch], [data-act=stop-fetch]"));
        if (event.target.closest("[data-act]")) clicked = performance.now();
      });
      new MutationObserver(() => {
        for (const card of element.querySelectorAll("details"))
          if (opened.has(card.dataset.pack) && card.open !== opened.get(card.dataset.pack)) card.open = opened.get(card.dataset.pack);
        const progress = element.querySelector(".fetching.running");
        if (pressed && progress) { pressed = false; progress.focus(); } // the button that was pressed is gone
      }).observe(element, { childList: true, subtree: true, attributes: true });
    },
    // The list of the visitor's runs stays open while it is written anew, and is looked at each second while it is open.
    queue(element, trigger) {
      let open = false, kept = "";
      const list = () => element.querySelector("details.queue");
      element.addEventListener("toggle", (event) => {
        if (event.target !== list()) return;
        const before = open;
        open = event.target.open;
        if (open && !before) trigger("click", { act: "queue-look" });
      }, true);
      element.addEventListener("click", (event) => {
        const at = event.target.closest("[data-act]");
        kept = at ? `[data-act="${at.dataset.act}"]` + (at.dataset.job ? `[data-job="${at.dataset.job}"]` : "") : "";
      });
      new MutationObserver(() => {
        if (list() && open && !list().open) list().open = true;
        if (kept && open && document.activeElement === document.body) (element.querySelector(`${kept}:not(:disabled)`) || element.querySelector("summary"))?.focus();
      }).observe(element, { childList: true, subtree: true });
      document.addEventListener("click", (event) => { if (open && !element.contains(event.target) && event.isTrusted && document.contains(event.target)) list().open = false; });
      element.addEventListener("keydown", (event) => {
        if (event.key === "Escape" && open) { list().open = false; element.querySelector("summary").focus(); }
      });
      setInterval(() => { if (open && !document.hidden) trigger("click", { act: "queue-look" }); }, 1000);
    },
    // Show one of the pictures large, and let its tile know.
    look(index) {
      for (const one of document.querySelectorAll("#stage [data-figure]")) one.hidden = one.dataset.figure !== index;
      for (const one of document.querySelectorAll("#sheet .tile[data-look]")) one.setAttribute("aria-pressed", String(one.dataset.look === index));
    },
  });

  document.addEventListener("click", (event) => {
    const at = event.target.closest?.("[data-set-lang], [data-set-theme], [data-look], [data-tab], [data-engine], [data-steer]");
    if (!at) return;
    if (at.dataset.setLang) { kept.set("lang", at.dataset.setLang); speak(at.dataset.setLang); }
    if ("setTheme" in at.dataset) { kept.set("theme", root.classList.contains("dark") ? "light" : "dark"); paint(); }
    if (at.dataset.engine) kept.set("engine", at.dataset.engine);
    if (at.dataset.steer) kept.set("steer", at.dataset.steer);
    if (at.dataset.look) window.atelier.look(at.dataset.look);
    if (at.dataset.tab) document.querySelector(`#tab-${at.dataset.tab}-button`)?.click();
  });

  // A link with a picture's settings: copied, or shown in a field where the browser forbids copying.
  const heard = Object.assign(document.createElement("p"), { className: "only-heard" });
  heard.setAttribute("role", "status");
  document.body.append(heard);
  const copy = async (text, place) => {
    try { await navigator.clipboard.writeText(text); return true; } catch { /* forbidden, or the page came by plain http */ }
    const box = Object.assign(document.createElement("textarea"), { value: text, readOnly: true, className: "only-heard" });
    place.append(box);
    box.select();
    const done = document.execCommand("copy");
    box.remove();
    return done;
  };
  document.addEventListener("click", async (event) => {
    const at = event.target.closest?.("[data-link]");
    if (!at) return;
    const told = at.nextElementSibling, field = told.querySelector("input");
    if (field) {
      const place = document.querySelector("meta[name=atelier-address]")?.content || location.origin + location.pathname;
      field.value = `${place}?r=${at.dataset.link}`;
      told.classList.toggle("forbidden", !(await copy(field.value, at.closest("dialog") || document.body)));
    }
    told.hidden = false;
    if (told.classList.contains("forbidden")) field.select(); else at.focus();
    heard.textContent = told.innerText;
  });

  // Sliders of words, in the panel on how a picture was drawn: the button beside them carries all weights that are not 1.
  document.addEventListener("input", (event) => {
    const panel = event.target.closest?.("[data-weigh]") && event.target.closest("[data-explained]");
    if (!panel) return;
    event.target.nextElementSibling.textContent = String(Number(event.target.value));
    const weights = Array.from(panel.querySelectorAll("[data-weigh]")).filter((one) => Number(one.value) !== 1);
    panel.querySelector("[data-act=weigh]").dataset.weights = weights.map((one) => `${one.dataset.weigh}=${Number(one.value)}`).join(", ");
  });

  // Ctrl+Enter or Cmd+Enter does the next thing, from inside the prompt box and from every setting below it.
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || event.isComposing) return;
    const place = event.target.closest?.("#generate-controls, #optimize-controls, #optimize-view, #edit-controls, #edit-view, #see, .plain");
    if (!place) return;
    event.preventDefault();
    event.stopPropagation();
    const next = { "generate-controls": "#go", "edit-controls": "#edit-buttons [data-key]", "edit-view": "#edit-buttons [data-key]" };
    if (place.matches("#see")) {
      Array.from(place.querySelectorAll("[data-key]")).find((one) => one.offsetParent)?.click();
      return;
    }
    document.querySelector(place.matches(".plain") ? `#${place.id} [data-key]` : next[place.id] || "#optimize-buttons [data-key]")?.click();
  }, true);

  // A file dropped anywhere is a picture with settings, on Optimize the picture to start from, on Edit the picture to edit or a
  // direction for the shelf, on See pictures to look at, in the Library pictures to find others like them, unless it lands on a field that takes files itself.
  const carriesFiles = (event) => Array.from(event.dataTransfer?.types || []).includes("Files");
  const elsewhere = (event) => carriesFiles(event) && !event.target.closest?.("#drop, .picture-field");
  let depth = 0;
  const hover = (change) => { depth = Math.max(0, depth + change); root.classList.toggle("dropping", depth > 0); };
  document.addEventListener("dragenter", (event) => carriesFiles(event) && hover(1));
  document.addEventListener("dragleave", (event) => carriesFiles(event) && hover(-1));
  document.addEventListener("dragover", (event) => elsewhere(event) && event.preventDefault());
  document.addEventListener("drop", (event) => {
    hover(-depth);
    if (!elsewhere(event)) return;
    event.preventDefault();
    if (document.querySelector("#see")?.offsetParent) { window.atelier.give(event.dataTransfer.files); return; }
    if (document.querySelector("#library")?.offsetParent) { window.atelier.lookFor(event.dataTransfer.files); return; }
    const optimizing = document.querySelector("#optimize")?.offsetParent;
    if (optimizing) document.querySelector("#opt-image button[aria-label='Remove Image']")?.click(); // one picture at a time
    const editing = document.querySelector("#edit")?.offsetParent;
    const plain = Array.from(document.querySelectorAll(".plain")).find((one) => one.offsetParent);
    if (plain) { giveFile(`#${plain.id} input[type=file]`, event.dataTransfer.files[0]); return; }
    giveFile(places[optimizing ? "optimize" : editing ? "edit" : "settings"], event.dataTransfer.files[0]);
  });
  // A picture pasted on Edit is the picture to edit, on See one more to look at, in the Library one to find others like it.
  document.addEventListener("paste", (event) => {
    const file = Array.from(event.clipboardData?.files || [])[0];
    if (file && document.querySelector("#see")?.offsetParent) { event.preventDefault(); window.atelier.give([file]); return; }
    if (file && document.querySelector("#library")?.offsetParent) { event.preventDefault(); window.atelier.lookFor([file]); return; }
    if (!file || !document.querySelector("#edit")?.offsetParent) return;
    event.preventDefault();
    giveFile(places.edit, file);
  });
  const places = { // of files
    generate: "#knob-image input[type=file]", optimize: "#opt-image input[type=file]", edit: "input[type=file]:has(+ #edit-upload)",
    see: "input[type=file]:has(+ #see-upload)", settings: "#drop input[type=file]",
  };
  const giveFile = (place, file, tries = 20) => {
    const input = document.querySelector(place);
    if (!input) { if (tries) setTimeout(giveFile, 50, place, file, tries - 1); return; }
    const files = new DataTransfer();
    files.items.add(file);
    input.files = files.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
  };
  Object.assign(window.atelier, { places, giveFile: (tab, file) => giveFile(places[tab], file, 100) });
})();
