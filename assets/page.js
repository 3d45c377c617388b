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

  window.atelier = {
    // Who is here, which job is being looked at, and in what language: asked once when the page opens.
    arrive() {
      if (!kept.get("visitor")) kept.set("visitor", random(16));
      speak(language());
      document.querySelector("#announce")?.setAttribute("aria-live", "polite");
      document.querySelector("#note")?.setAttribute("role", "status");
      const job = new URLSearchParams(location.search).get("job") || kept.get("job");
      return [kept.get("visitor") || random(16), job, language() === browserLanguage ? "" : language()];
    },
    // The job stays in the address and in the browser: a reload or a new tab finds it again.
    remember(job) {
      kept.set("job", job);
      const address = new URL(location.href);
      if (job) address.searchParams.set("job", job); else address.searchParams.delete("job");
      history.replaceState(null, "", address);
    },
    roll: () => crypto.getRandomValues(new Uint32Array(1))[0],
    // Show one of the pictures large, and let its tile know.
    look(index) {
      for (const one of document.querySelectorAll("#stage [data-figure]")) one.hidden = one.dataset.figure !== index;
      for (const one of document.querySelectorAll("#sheet [data-look]")) one.setAttribute("aria-pressed", String(one.dataset.look === index));
    },
  };

  document.addEventListener("click", (event) => {
    const at = event.target.closest?.("[data-set-lang], [data-set-theme], [data-look]");
    if (!at) return;
    if (at.dataset.setLang) { kept.set("lang", at.dataset.setLang); speak(at.dataset.setLang); }
    if ("setTheme" in at.dataset) { kept.set("theme", root.classList.contains("dark") ? "light" : "dark"); paint(); }
    if (at.dataset.look) window.atelier.look(at.dataset.look);
  });

  // Ctrl+Enter or Cmd+Enter generates, from inside the prompt box and from every setting below it.
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || event.isComposing) return;
    if (!event.target.closest?.("#composer")) return;
    event.preventDefault();
    event.stopPropagation();
    document.querySelector("#go")?.click();
  }, true);

  // A file dropped anywhere is a picture with settings, unless it lands on a field that takes files itself.
  const carriesFiles = (event) => Array.from(event.dataTransfer?.types || []).includes("Files");
  const elsewhere = (event) => carriesFiles(event) && !event.target.closest?.("#drop, #knob-image");
  let depth = 0;
  const hover = (change) => { depth = Math.max(0, depth + change); root.classList.toggle("dropping", depth > 0); };
  document.addEventListener("dragenter", (event) => carriesFiles(event) && hover(1));
  document.addEventListener("dragleave", (event) => carriesFiles(event) && hover(-1));
  document.addEventListener("dragover", (event) => elsewhere(event) && event.preventDefault());
  document.addEventListener("drop", (event) => {
    hover(-depth);
    const input = document.querySelector("#drop input[type=file]");
    if (!elsewhere(event) || !input) return;
    event.preventDefault();
    const files = new DataTransfer();
    files.items.add(event.dataTransfer.files[0]);
    input.files = files.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
  });
})();
