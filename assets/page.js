// The little that a page must do by itself: language, light and dark, the keyboard, dropped files, looking at tiles.
(() => {
  const root = document.documentElement;
  const kept = {
    get: (name) => { try { return localStorage.getItem("atelier-" + name) || ""; } catch { return ""; } },
    set: (name, value) => { try { localStorage.setItem("atelier-" + name, value); } catch { /* private window */ } },
  };

  // Language: the artist's choice, else the browser's.
  const browserLanguage = (navigator.language || "en").toLowerCase().startsWith("zh") ? "zh" : "en";
  const speak = (language) => {
    root.dataset.lang = language;
    root.lang = language === "zh" ? "zh-CN" : "en";
    for (const one of document.querySelectorAll("[data-set-lang]"))
      one.setAttribute("aria-pressed", String(one.dataset.setLang === language));
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

  const random = (bytes) => Array.from(crypto.getRandomValues(new Uint8Array(bytes)), (b) => b.toString(16).padStart(2, "0")).join("");

  // Where visitors are apart, the server knows this one by a cookie, else by what goes with each request: a header, and in the
  // addresses of pictures, films and directions, which a browser fetches by itself, a query.
  const visitor = kept.get("visitor") || random(16);
  kept.set("visitor", visitor);
  if (root.dataset.visitors) {
    const plainly = window.fetch;
    window.fetch = (what, options = {}) => {
      if (new URL(what.url || what, document.baseURI).origin !== location.origin) return plainly(what, options);
      const headers = new Headers(options.headers || what.headers);
      headers.set("X-Atelier-Visitor", visitor);
      return plainly(what, { ...options, headers });
    };
  }
  const tellInAddresses = () => {
    const ours = /^(picture|film|glimpse|direction|library)\//;
    const tell = () => {
      for (const one of document.querySelectorAll("[src], [href]"))
        for (const name of ["src", "href", "data-src"]) {
          const at = one.getAttribute(name);
          if (ours.test(at || "") && !at.includes("visitor=")) one.setAttribute(name, `${at}${at.includes("?") ? "&" : "?"}visitor=${visitor}`);
        }
    };
    new MutationObserver(tell).observe(document.body, { childList: true, subtree: true, attributes: true, attributeFilter: ["src", "href"] });
    tell();
  };

  // A line that is cut, for whatever time: what the page sends is sent again until it arrives. Gradio would reload the page, and
  // what was typed would be lost. Pictures that did not come are asked for again.
  const send = window.fetch;
  const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));
  let leaving = false, unsent = 0;
  addEventListener("pagehide", () => { leaving = true; });
  addEventListener("pageshow", () => { leaving = false; });
  const lineIs = (cut) => {
    const told = document.querySelector("#cut");
    if (told) told.hidden = !cut;
    if (cut) return;
    for (const one of document.images) if (one.complete && !one.naturalWidth && one.getAttribute("src")) one.src = one.src;
  };
  window.fetch = async (what, options = {}) => {
    const asked = what instanceof Request ? what : null;
    const address = new URL(asked ? asked.url : what, document.baseURI), method = options.method || asked?.method || "GET";
    if (address.origin !== location.origin || method.toUpperCase() !== "POST") return send(what, options);
    for (let tries = 0; ; tries++) {
      let answer = null, problem = null;
      try { answer = await send(asked ? asked.clone() : what, options); } catch (one) { problem = one; }
      const cut = problem ? problem instanceof TypeError && !options.signal?.aborted && !leaving : answer.status === 502 || answer.status === 504;
      if (tries && !cut && !--unsent) lineIs(false);
      if (!cut) { if (problem) throw problem; return answer; }
      if (!tries && !unsent++) lineIs(true);
      await pause(Math.min(500 * 2 ** tries, 3000));
    }
  };

  // Gradio calls its places for files by an English name, whatever is written in them; they are called by what is written.
  const nameByWords = () => {
    for (const one of document.querySelectorAll("[aria-dropeffect][aria-label]")) if (one.textContent.trim()) one.removeAttribute("aria-label");
  };
  new MutationObserver(nameByWords).observe(document.body, { childList: true, subtree: true, attributes: true, attributeFilter: ["aria-label"] });

  // Stop and Pause tell the server at once, by an address that waits for nothing; the button's own answer follows.
  document.addEventListener("click", (event) => {
    const at = event.target.closest?.("#stop, [data-act=stop], [data-act=pause]");
    const job = at?.closest("[role=tabpanel]")?.querySelector("section[data-job]")?.dataset.job;
    if (job) fetch(`stop/${job}`, { method: "POST" }).catch(() => {});
  }, true);

  window.atelier = {
    // Who is here, which job is being looked at and which engine was chosen last: asked once when the page opens, as is the
    // language, if it was chosen.
    async arrive() {
      if (root.dataset.visitors && !(await (await fetch("visitor")).json()).cookie) tellInAddresses();
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
    spoken: () => (language() === browserLanguage ? "" : language()),
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
  };

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
    giveFile(optimizing ? "#opt-image input[type=file]" : editing ? PICTURE_TO_EDIT : "#drop input[type=file]", event.dataTransfer.files[0]);
  });
  // A picture pasted on Edit is the picture to edit, on See one more to look at, in the Library one to find others like it.
  document.addEventListener("paste", (event) => {
    const file = Array.from(event.clipboardData?.files || [])[0];
    if (file && document.querySelector("#see")?.offsetParent) { event.preventDefault(); window.atelier.give([file]); return; }
    if (file && document.querySelector("#library")?.offsetParent) { event.preventDefault(); window.atelier.lookFor([file]); return; }
    if (!file || !document.querySelector("#edit")?.offsetParent) return;
    event.preventDefault();
    giveFile(PICTURE_TO_EDIT, file);
  });
  const PICTURE_TO_EDIT = "input[type=file]:has(+ #edit-upload)";
  const giveFile = (place, file, tries = 20) => {
    const input = document.querySelector(place);
    if (!input) { if (tries) setTimeout(giveFile, 50, place, file, tries - 1); return; }
    const files = new DataTransfer();
    files.items.add(file);
    input.files = files.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
  };
  window.atelier.giveFile = (tab, file) => giveFile({ optimize: "#opt-image input[type=file]", edit: PICTURE_TO_EDIT, generate: "#knob-image input[type=file]", settings: "#drop input[type=file]", see: "input[type=file]:has(+ #see-upload)" }[tab], file, 100);

  // ---- Optimize: two layers over the picture (a look back, a mask), and the prompt as rows with weights

  const find = (selector) => document.querySelector(selector);
  const section = () => find("#canvas section");
  const frame = () => find("#canvas figure:not([hidden]) .frame:not(.waiting)") || find("#canvas section > .frame:not(.waiting)");
  // A value written as if it were typed, so that the page's own state follows.
  const write = (box, value) => {
    if (!box || box.value === value) return;
    Object.getOwnPropertyDescriptor(Object.getPrototypeOf(box), "value").set.call(box, value);
    box.dispatchEvent(new Event("input", { bubbles: true }));
  };

  // Looking back: a step of the journal over the present picture. The timeline says which steps there are.
  let back = null; // { job, step }
  const glimpse = Object.assign(document.createElement("img"), { className: "layer glimpse", alt: "" });
  const track = () => find("#timeline .timeline");
  const snapshots = () => (track()?.dataset.steps || "").split(" ").filter(Boolean).map(Number);
  const nearest = (step) => snapshots().reduce((best, one) => Math.abs(one - step) < Math.abs(best - step) ? one : best, Infinity);
  const showBack = () => {
    const at = track();
    if (back && at && at.dataset.job !== back.job) back = null;
    const place = back && section()?.dataset.job === back.job && frame();
    if (place) {
      const source = `glimpse/${back.job}/${back.step}.jpg`;
      if (glimpse.getAttribute("src") !== source) glimpse.src = source;
      if (glimpse.parentNode !== place) place.append(glimpse);
    } else glimpse.remove();
    if (!at) return;
    const told = at.querySelector(".scrubbed");
    told.hidden = !back;
    for (const one of at.querySelectorAll(".tick")) one.setAttribute("aria-current", String(Boolean(back) && Number(one.dataset.scrub) === back.step));
    if (!back) return;
    told.querySelector(".at").innerHTML = word("step", back.step);
    for (const one of told.querySelectorAll("[data-step]")) one.dataset.step = back.step;
    const range = at.querySelector("input");
    range.value = back.step;
    range.setAttribute("aria-valuetext", String(back.step));
  };
  const lookBack = (step) => {
    const at = track();
    back = at && Number.isFinite(step) ? { job: at.dataset.job, step } : null;
    if (!back && at) at.querySelector("input").value = snapshots().at(-1);
    showBack();
  };
  const walk = (by) => {
    const steps = snapshots();
    if (!steps.length) return;
    const at = back ? steps.indexOf(back.step) : steps.length - 1;
    lookBack(steps[Math.max(0, Math.min(steps.length - 1, at + by))]);
  };

  const makeBrush = window.atelierBrush;
  const maskBox = () => find("#opt-mask textarea, #opt-mask input");
  const brush = makeBrush(frame, () => find("#brush [data-brush]"), (uri) => write(maskBox(), uri));

  // The prompt as rows. The text is the truth: a slider rewrites it, and whatever else changes it redraws the rows, as soon as
  // the server has parsed it. Until then the rows stand for an older text and change nothing. `boxOf` gives the prompt's box,
  // `placeOf` where the rows stand; `plainly` tells that one text alone needs no row.
  const wordsIn = (name) => Array.from(document.querySelectorAll(`[data-words] [data-word=${name}]`));
  const word = (name, fact = "") => (wordsIn(name)[0]?.innerHTML || "").replaceAll("#", String(fact));
  const plain = (name) => wordsIn(name)[0]?.querySelector(`.${root.dataset.lang}`)?.textContent || "";
  const say = (scenes) => scenes.map(({ step, targets }) => targets.map(({ text, said, weight, stop }) =>
    (said ?? text) + (weight === 1 && stop === null ? "" : `:${weight}`) + (stop === null ? "" : `:${stop}`)).join(" | ") + (step && ` @${step}`)).join(" ^ ");
  const makeRows = (boxOf, placeOf, plainly) => {
    let shown = null; // the text that the rows stand for
    let story = [];
    const muted = new Map(); // text -> its weight before it was left out
    const rewrite = (change) => {
      if (boxOf()?.value !== shown) return;
      change();
      shown = say(story);
      write(boxOf(), shown);
    };
    const draw = () => {
      const place = placeOf();
      if (!place) return;
      place.replaceChildren();
      const every = story.flatMap((scene) => scene.targets);
      place.hidden = plainly && every.length < 2 && every.every((one) => one.weight === 1 && one.stop === null);
      if (place.hidden) return;
      story.forEach((scene, number) => {
        if (story.length > 1) {
          const head = document.createElement("p");
          head.innerHTML = word("scene", number + 1) + (scene.step ? " · " + word("step", scene.step) : "");
          place.append(head);
        }
        for (const one of scene.targets) place.append(rowOf(one, scene));
      });
      const add = Object.assign(document.createElement("button"), { type: "button", className: "add", innerHTML: "+ " + word("add") });
      add.addEventListener("click", () => {
        const box = boxOf();
        write(box, box.value.trim() ? box.value.trimEnd() + " | " : "");
        box.focus();
        box.setSelectionRange(box.value.length, box.value.length);
      });
      place.append(add);
    };
    const rowOf = (one, scene) => {
      const row = document.createElement("div");
      row.className = "target" + (one.weight < 0 ? " away" : "") + (one.weight === 0 ? " off" : "");
      row.innerHTML = `<button type="button" class="eye"><i></i></button><span class="text"></span>
        <input type="range" min="${Math.min(-2, one.weight)}" max="${Math.max(2, one.weight)}" step="0.05">
        <output></output><button type="button" class="drop">×</button>`;
      const [eye, name, slider, told, drop] = row.children;
      name.textContent = name.title = one.text;
      slider.value = one.weight;
      slider.setAttribute("aria-label", `${plain("weight")}: ${one.text}`);
      eye.setAttribute("aria-label", `${plain("off")}: ${one.text}`);
      eye.title = plain("off");
      drop.setAttribute("aria-label", `${plain("remove")}: ${one.text}`);
      const show = () => {
        told.textContent = one.weight.toFixed(2).replace(/0$/, "").replace("-", "−");
        eye.setAttribute("aria-pressed", String(one.weight !== 0));
        row.classList.toggle("away", one.weight < 0);
        row.classList.toggle("off", one.weight === 0);
        slider.style.setProperty("--at", `${100 * (one.weight - slider.min) / (slider.max - slider.min)}%`);
      };
      slider.addEventListener("input", () => rewrite(() => { one.weight = Number(slider.value); show(); }));
      eye.addEventListener("click", () => rewrite(() => {
        if (one.weight) { muted.set(one.text, one.weight); one.weight = 0; } else one.weight = muted.get(one.text) || 1;
        slider.value = one.weight;
        show();
      }));
      drop.addEventListener("click", () => rewrite(() => {
        scene.targets.splice(scene.targets.indexOf(one), 1);
        story = story.filter((each) => each.targets.length);
        draw();
      }));
      show();
      return row;
    };
    return {
      draw,
      forget() { shown = null; draw(); },
      // What the server parsed; an answer about an older text than the box's is left out.
      take({ text, scenes }) {
        const present = text.replace(/\r\n?/g, "\n"); // as a box tells its lines
        if (boxOf()?.value !== present || shown === present) return;
        shown = present;
        story = scenes;
        draw();
      },
    };
  };
  const promptRows = makeRows(() => find("#opt-prompt textarea"), () => find("#opt-rows [data-targets]"), false);

  // Generate's rows stand below its prompt, in a place that the server does not write: a slider is not taken away in the middle.
  const partsPlace = Object.assign(document.createElement("div"), { className: "targets", id: "parts", hidden: true });
  const partsRows = makeRows(() => find("#prompt textarea"), () => {
    const press = find("#press");
    if (press && partsPlace.previousElementSibling !== press) press.after(partsPlace);
    return press && partsPlace;
  }, true);

  // What a prompt could be instead: a click puts it in the place of the prompt's end, or of a word. Down leads from the prompt
  // to the offers, arrows from one to the next, Escape back.
  const boxBeside = (at) => find(at.closest("#opt-ask") ? "#opt-prompt textarea" : "#prompt textarea");
  document.addEventListener("click", (event) => {
    const at = event.target.closest?.("[data-offer]"), box = at && boxBeside(at);
    if (!box) return;
    const { offer, tail, word: strange } = at.dataset, text = box.value;
    let now = text;
    if (tail !== undefined && text.toLowerCase().endsWith(tail.toLowerCase())) now = text.slice(0, text.length - tail.length) + offer;
    else if (strange) {
      const from = text.toLowerCase().indexOf(strange.toLowerCase());
      if (from >= 0) now = text.slice(0, from) + offer + text.slice(from + strange.length).replace(/^[\ufe0e\ufe0f\u200d]+/, "");
    }
    write(box, now);
    box.focus();
    box.setSelectionRange(now.length, now.length);
  });
  document.addEventListener("keydown", (event) => {
    const at = event.target;
    if (event.key === "ArrowDown" && at.matches?.("#prompt textarea, #opt-prompt textarea") && at.selectionStart === at.value.length && !event.isComposing && !window.atelier.browsing?.()) {
      const first = at.closest("#ask, #opt-ask")?.querySelector("[data-offer]");
      if (first) { event.preventDefault(); first.focus(); }
      return;
    }
    if (!at.matches?.("[data-offer]")) return;
    if (event.key === "Escape") { boxBeside(at)?.focus(); return; }
    const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!by) return;
    event.preventDefault();
    const all = Array.from(at.closest(".offers").querySelectorAll("[data-offer]"));
    const next = all[all.indexOf(at) + by];
    if (next) next.focus(); else if (by < 0) boxBeside(at)?.focus();
  });

  const watching = (element, answer) => { new MutationObserver(answer).observe(element, { childList: true, subtree: true }); answer(); };
  const layersOnly = (records) => records.every((one) => [...one.addedNodes, ...one.removedNodes].every((node) => node === brush.layer || node === glimpse));
  let pressed = false;
  Object.assign(window.atelier, {
    canvas(element) {
      watching(element, (records) => { if (!records || !layersOnly(records)) { showBack(); brush.show(); } });
    },
    timeline(element) { watching(element, () => { if (back || find("#timeline .scrubbed:not([hidden])")) quietly(element); }); },
    // The button that was pressed is another one now; the keyboard stays where it was.
    controls(element) {
      find("#opt-announce")?.setAttribute("aria-live", "polite");
      find("#opt-note")?.setAttribute("role", "status");
      setTimeout(() => { const box = maskBox(); if (box) window.atelier.mask(box.value); });
      watching(element, () => {
        if (pressed && document.activeElement === document.body) element.querySelector("button")?.focus();
        pressed = false;
      });
    },
    rows(ask) {
      promptRows.forget();
      ask();
    },
    targets(parsed) {
      const told = JSON.parse(parsed), notes = find("#opt-rows [data-notes]");
      promptRows.take(told);
      if (notes) notes.innerHTML = told.notes || "";
    },
    reading(element) {
      watching(element, () => {
        const parsed = element.querySelector("[data-parsed]")?.dataset.parsed;
        if (parsed) partsRows.take(JSON.parse(parsed));
      });
    },
    mask(uri) { brush.set(uri); },
  });
  let resting = false; // our own words in the timeline are no news
  const quietly = () => {
    if (resting) return;
    resting = true;
    showBack();
    queueMicrotask(() => { resting = false; });
  };

  document.addEventListener("click", (event) => {
    const at = event.target.closest?.("[data-scrub], [data-now], [data-back], [data-view], [data-paint], [data-erase], [data-invert], [data-clear], [data-undo], [data-redo], [data-zoom], #optimize-buttons button");
    if (!at) return;
    if (at.closest("#optimize-buttons")) pressed = true;
    if ("scrub" in at.dataset) lookBack(Number(at.dataset.scrub));
    if ("now" in at.dataset) lookBack(NaN);
    if ("back" in at.dataset) walk(-1);
    if ("view" in at.dataset) {
      for (const one of document.querySelectorAll("#canvas [data-figure]")) one.hidden = one.dataset.figure !== at.dataset.view;
      for (const one of document.querySelectorAll("#canvas [data-view]")) one.setAttribute("aria-pressed", String(one === at));
      lookBack(NaN);
      brush.show();
    }
    if (at.closest("[data-brush]")) {
      const mine = at.closest("#edit-brush") ? editBrush : at.closest("#draw-brush") ? drawBrush : brush;
      if ("paint" in at.dataset && !mine.on && mine !== drawBrush) mine === brush ? lookBack(NaN) : lookAt(NaN);
      mine.press(at.dataset);
    }
  });
  document.addEventListener("input", (event) => { if (event.target.matches?.("#timeline input")) lookBack(nearest(Number(event.target.value))); });
  document.addEventListener("keydown", (event) => {
    if (!event.target.matches?.("#timeline input")) return;
    const by = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, Home: -1e6, End: 1e6 }[event.key];
    if (by) { event.preventDefault(); walk(by); }
  });

  // Diffusion's mask in Generate, painted over the picture to start from or read from a file: opacity where some of it is
  // transparent, else brightness.
  let drawBrush = null;
  const maskOf = async (file) => {
    const picture = await createImageBitmap(file);
    const share = Math.min(1, 2048 / Math.max(picture.width, picture.height));
    const [width, height] = [picture.width, picture.height].map((side) => Math.max(1, Math.round(side * share)));
    const canvas = Object.assign(document.createElement("canvas"), { width, height }), pen = canvas.getContext("2d");
    pen.drawImage(picture, 0, 0, width, height);
    const pixels = pen.getImageData(0, 0, width, height), levels = pixels.data;
    const clear = levels.some((level, at) => at % 4 === 3 && level < 255);
    for (let at = 0; at < levels.length; at += 4) {
      const light = clear ? levels[at + 3] : levels[at] * .299 + levels[at + 1] * .587 + levels[at + 2] * .114;
      levels.set([light, light, light, 255], at);
    }
    pen.putImageData(pixels, 0, 0);
    return canvas.toDataURL("image/png");
  };
  window.atelier.drawMask = (element) => {
    const place = element.querySelector(".paints"), now = place.querySelector("img.now"), box = element.querySelector("[name=mask]");
    const mine = makeBrush(() => (now.getAttribute("src") ? now.parentNode : null), () => place.querySelector("[data-brush]"), (uri) => write(box, uri));
    const follow = () => {
      const source = find("#diffuse-image img")?.src || "";
      if (source === (now.getAttribute("src") || "")) return;
      if (source) now.src = source;
      else { now.removeAttribute("src"); mine.on = false; mine.set(""); write(box, ""); }
      mine.show();
    };
    drawBrush = mine;
    place.addEventListener("input", (event) => event.stopPropagation()); // what is in it is no setting
    now.addEventListener("load", () => { mine.refit(); mine.show(); });
    element.addEventListener("filled", () => mine.set(box.value));
    place.querySelector("[type=file]").addEventListener("change", async ({ target }) => {
      const [file] = target.files;
      target.value = "";
      const uri = file ? await maskOf(file).catch(() => "") : "";
      if (uri) { write(box, uri); mine.set(uri); }
    });
    new MutationObserver(follow).observe(find("#from-picture"), { childList: true, subtree: true, attributes: true, attributeFilter: ["src"] });
    follow();
    mine.set(box.value);
  };

  // Guide's part of the form, and the chip that chooses between VQGAN and diffusion.
  const GUIDE = "#opt-engine,#opt-guide";
  let waiting = ""; // what is filled in once the tab has been opened
  let filled = false; // something was, and says the engine
  Object.assign(window.atelier, {
    guided: () => JSON.stringify(read(entriesIn(GUIDE))),
    fillGuide(given) {
      if (!given) return;
      if (!find("#opt-guide .guide-form")) { waiting = given; return; }
      filled = true;
      for (const [name, value] of Object.entries(JSON.parse(given))) put(entriesIn(GUIDE, name), value);
    },
    guideForm() {
      setTimeout(() => {
        if (waiting) window.atelier.fillGuide(waiting);
        else if (!filled && kept.get("steer")) put(entriesIn(GUIDE, "steer"), kept.get("steer"));
        waiting = "";
      });
    },
  });

  // ---- Edit: a form of our own, a wipe between before and after, a look back at what had been learned

  const editFrame = () => find("#proof .frame:not(.waiting)");
  const editBrush = makeBrush(editFrame, () => find("#edit-brush [data-brush]"), () => soon());
  let ask = null; // asks for the outlook
  let pending = "";
  let asking = 0;
  const soon = () => { clearTimeout(asking); asking = setTimeout(() => { if (ask && find("#edit")?.offsetParent) ask(); }, 450); };
  const minus = (number) => String(Number(number)).replace("-", "−");
  const directions = () => {
    const uses = {};
    for (const row of document.querySelectorAll("#edit-shelf [data-direction]"))
      if (row.querySelector("[data-use]").checked) uses[row.dataset.direction] = Number(row.querySelector("input[type=range]").value);
    return uses;
  };
  const entriesIn = (place, name) => document.querySelectorAll(place.split(",").map((one) => `${one} [name${name ? `="${CSS.escape(name)}"` : ""}]`).join());
  const entries = (name) => entriesIn("#edit-controls", name);
  const read = (inputs) => {
    const found = {};
    for (const one of inputs) {
      if (one.type === "radio") { if (one.checked) found[one.name] = one.value; }
      else if (one.type === "checkbox") found[one.name] = one.checked;
      else if (one.type === "number" || one.type === "range") found[one.name] = one.value === "" ? null : Number(one.value);
      else found[one.name] = one.value;
    }
    return found;
  };
  const put = (inputs, value) => {
    for (const one of inputs) {
      if (one.type === "radio") one.checked = one.value === value;
      else if (one.type === "checkbox") one.checked = Boolean(value);
      else one.value = value ?? "";
    }
  };
  const showForm = () => {
    const far = find("#edit-controls [name=strength]");
    if (!far) return;
    far.parentNode.querySelector("output").textContent = minus(far.value);
    far.style.setProperty("--at", `${100 * (far.value - far.min) / (far.max - far.min)}%`);
    far.style.setProperty("--zero", `${100 * -far.min / (far.max - far.min)}%`);
    find("#edit-controls")?.classList.toggle("directed", Object.keys(directions()).length > 0);
  };
  // A step of what was learned over the picture as it is now; the server needs a second or two to draw one.
  let at = null; // { job, step }
  let drawing = 0;
  const past = Object.assign(document.createElement("img"), { className: "layer glimpse", alt: "" });
  past.addEventListener("load", () => editFrame()?.classList.remove("drawing"));
  past.addEventListener("error", () => editFrame()?.classList.remove("drawing"));
  const learnt = () => find("#edit-learning .learning");
  const lookAt = (step) => {
    const place = learnt();
    const slider = place?.querySelector("[data-learned]");
    const steps = (place?.dataset.steps || "").split(" ").filter(Boolean).map(Number);
    if (!slider || !steps.length) { past.remove(); at = null; return; }
    const nearest = Number.isFinite(step) ? steps.reduce((best, one) => Math.abs(one - step) < Math.abs(best - step) ? one : best, Infinity) : steps.at(-1);
    slider.value = nearest;
    slider.setAttribute("aria-valuetext", String(nearest));
    at = Number.isFinite(step) && nearest !== steps.at(-1) ? { job: place.dataset.job, step: nearest } : null;
    place.querySelector(".scrubbed").hidden = !at;
    place.querySelector(".hint").hidden = Boolean(at);
    clearTimeout(drawing);
    if (!at) { past.remove(); past.removeAttribute("src"); editFrame()?.classList.remove("drawing"); return; }
    for (const one of place.querySelectorAll(".at > *")) one.textContent = (one.dataset.said ??= one.textContent).replace("#", nearest);
    place.querySelector("[data-act=until].quiet").dataset.step = nearest;
    editFrame()?.classList.add("drawing");
    drawing = setTimeout(() => {
      const source = `glimpse/${at.job}/${at.step}.jpg`;
      if (past.getAttribute("src") !== source) past.src = source; else editFrame()?.classList.remove("drawing");
      const frame = editFrame();
      if (frame && past.parentNode !== frame) frame.append(past);
    }, 250);
  };
  const ours = (records) => records?.every((one) => [...one.addedNodes, ...one.removedNodes].every((node) => node === editBrush.layer || node === past));
  Object.assign(window.atelier, {
    values() {
      return JSON.stringify({ ...read(entries()), mask: editBrush.own, uses: directions() });
    },
    fill(given) {
      if (!given) return;
      if (!ask) { pending = given; return; } // the tab has not been opened yet
      for (const [name, value] of Object.entries(JSON.parse(given))) {
        if (name === "mask") editBrush.set(value);
        put(entries(name), value);
      }
      find("#edit-controls").dispatchEvent(new Event("filled"));
      showForm();
      soon();
    },
    form(element, look) {
      ask = look;
      if (pending) setTimeout(() => { window.atelier.fill(pending); pending = ""; });
      const side = element.closest("#edit-controls");
      setTimeout(() => { side.append(element.querySelector(".rest")); window.atelier.axes(side); }); // what is seldom needed comes after button and shelf
      side.addEventListener("input", () => { showForm(); soon(); });
      element.addEventListener("keydown", (event) => {
        if (event.key === "Enter" && event.target.matches(".words input") && !event.isComposing && !event.ctrlKey && !event.metaKey)
          find("#edit-buttons [data-key]")?.click();
      });
      side.addEventListener("click", (event) => {
        const pair = event.target.closest("[data-from]");
        const roll = event.target.closest("[data-roll]");
        if (pair) window.atelier.fill(JSON.stringify({ source: pair.dataset.from, prompt: pair.dataset.to }));
        if (roll) { entries("seed")[0].value = window.atelier.roll(); soon(); }
      });
      find("#edit-note")?.setAttribute("role", "status");
      const first = root.dataset.lang === "zh" && !pending && element.querySelector(".zh [data-from]");
      if (first) { entries("source")[0].value = first.dataset.from; entries("prompt")[0].value = first.dataset.to; }
      showForm();
      setTimeout(() => { const shelf = find("#edit-shelf"); if (shelf) watching(shelf, () => { showForm(); }); });
    },
    proof(element) {
      watching(element, (records) => {
        if (records && ours(records)) return;
        editBrush.show();
        if (at && find("#proof section")?.dataset.job !== at.job) lookAt(NaN);
        else if (at && editFrame() && past.parentNode !== editFrame()) editFrame().append(past);
      });
    },
    learning() { at = null; },
  });
  document.addEventListener("input", (event) => {
    const one = event.target;
    if (one.matches?.("#proof .wipe")) one.closest(".frame").style.setProperty("--cut", `${one.value}%`);
    if (one.matches?.("[data-learned]")) lookAt(Number(one.value));
    if (one.closest?.("#edit-shelf")) {
      const row = one.closest("[data-direction]");
      row.querySelector("output").textContent = minus(row.querySelector("input[type=range]").value);
      if (one.type === "range") row.querySelector("[data-use]").checked = true;
      showForm();
    }
  });
  document.addEventListener("keydown", (event) => { // the slider stands at snapshots only
    if (!event.target.matches?.("[data-learned]")) return;
    const by = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 }[event.key];
    if (!by) return;
    event.preventDefault();
    const steps = (learnt().dataset.steps || "").split(" ").filter(Boolean).map(Number);
    const now = steps.indexOf(at ? at.step : steps.at(-1));
    lookAt(steps[Math.max(0, Math.min(steps.length - 1, now + by))]);
  });
  document.addEventListener("click", (event) => {
    const one = event.target.closest?.("#edit :is([data-strength], [data-choose], [data-present])");
    if (!one) return;
    if ("choose" in one.dataset) find(PICTURE_TO_EDIT)?.click();
    if ("present" in one.dataset) lookAt(NaN);
    if ("strength" in one.dataset) {
      for (const each of document.querySelectorAll("#proof [data-strength]")) each.setAttribute("aria-pressed", String(each === one));
      for (const each of document.querySelectorAll("#proof [data-figure]")) each.hidden = each.dataset.figure !== one.dataset.strength;
      const now = find("#proof .frame img.now");
      now.src = one.dataset.src;
      if (one.closest(".cells")) now.decode().then(() => now.parentNode.style.setProperty("--ratio", now.naturalWidth / now.naturalHeight), () => {});
      lookAt(NaN);
    }
  });
})();
