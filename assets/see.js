// See: which picture is looked at, which word's heat lies over it, and what the form says. The server answers; nothing else is asked.
(() => {
  const find = (selector) => document.querySelector(selector);
  const all = (selector) => Array.from(document.querySelectorAll(selector));
  const chinese = () => document.documentElement.dataset.lang === "zh";
  const section = () => find("#see-stage section.seen[data-at]");
  const at = () => Number(section()?.dataset.at || 0);
  const field = (name) => find(`#see-form [name="${name}"]`);
  const mode = () => find("#see-form [name=mode]:checked")?.value || "name";

  // The heat of one word, over the picture that it is of only.
  const showHeat = () => {
    const frame = find("#see-stage .frame"), layer = frame?.querySelector(".heat");
    if (!layer) return;
    const word = find("#see-answer [data-heat][aria-pressed=true]");
    const fits = Boolean(word) && Number(word.dataset.at) === at();
    frame.classList.toggle("heated", fits);
    layer.hidden = !fits;
    if (!fits) return;
    if (layer.getAttribute("src") !== word.dataset.heat) layer.src = word.dataset.heat;
    frame.style.setProperty("--x", word.dataset.x);
    frame.style.setProperty("--y", word.dataset.y);
  };
  const look = (place) => {
    const stage = section(), cell = find(`#see-stage [data-see="${place}"]`);
    if (!stage || !cell) return;
    stage.dataset.at = place;
    for (const one of all("#see-stage [data-see]")) one.setAttribute("aria-current", String(one === cell));
    Object.assign(stage.querySelector(".frame .now"), { src: cell.dataset.large, alt: cell.querySelector("img").alt });
    for (const one of all("#see-answer [data-for]")) one.hidden = one.dataset.for !== String(place);
    const prompt = field("prompt");
    if (prompt && cell.dataset.prompt && (!prompt.value || prompt.dataset.own)) { prompt.value = cell.dataset.prompt; prompt.dataset.own = "1"; }
    showHeat();
  };
  const watching = (element, answer) => { new MutationObserver(answer).observe(element, { childList: true, subtree: true }); answer(); };

  Object.assign(window.atelier, {
    question() {
      const texts = Object.fromEntries(["labels", "templates", "prompt", "label", "taught"].map((name) => [name, field(name)?.value || ""]));
      return JSON.stringify({ ...texts, mode: mode(), at: at(), language: chinese() ? "zh" : "en" });
    },
    seeing(element) { watching(element, showHeat); },
    answer(element) {
      find("#see-answer")?.setAttribute("aria-live", "polite");
      watching(element, () => {
        for (const one of all("#see-answer [data-for]")) one.hidden = one.dataset.for !== String(at());
        showHeat();
      });
    },
    // The server wrote the form anew: what was touched before follows too.
    asking(element) {
      const write = () => {
        for (const one of all("#see-form [name]:not([type=hidden])")) // a hidden field's value is its attribute, which is watched
          if (one.type === "radio") one.checked = one.defaultChecked; else one.value = one.defaultValue;
        window.atelier.inWords(element);
      };
      window.atelier.inWords(element);
      const byServer = (change) => change.type !== "attributes" || change.target.type !== "hidden"; // or this script's own
      new MutationObserver((changes) => { if (changes.some(byServer)) write(); }).observe(element, { childList: true, subtree: true, characterData: true, attributes: true, attributeFilter: ["checked", "value"] });
    },
    give(files) {
      const input = find(window.atelier.places.see);
      if (!input) return;
      const carried = new DataTransfer();
      for (const file of files) carried.items.add(file);
      input.files = carried.files;
      input.dispatchEvent(new Event("change", { bubbles: true }));
    },
  });

  document.addEventListener("click", (event) => {
    const one = event.target.closest?.("#see :is([data-see], [data-heat], [data-choose], [data-fill], [data-taught], [data-wordings])");
    if (!one) return;
    if ("choose" in one.dataset) find(window.atelier.places.see)?.click();
    if ("see" in one.dataset) look(Number(one.dataset.see));
    if ("heat" in one.dataset) {
      const pressed = one.getAttribute("aria-pressed") === "true";
      if (Number(one.dataset.at) !== at()) look(Number(one.dataset.at));
      for (const word of all("#see-answer [data-heat]")) word.setAttribute("aria-pressed", String(word === one && !pressed));
      showHeat();
    }
    if ("wordings" in one.dataset) field("templates").value = one.dataset.wordings;
    if ("fill" in one.dataset) { field("labels").value = chinese() ? one.dataset.zh : one.dataset.en; teach(""); }
    if ("taught" in one.dataset && !("act" in one.dataset)) {
      const pressed = one.getAttribute("aria-pressed") === "true";
      teach(pressed ? "" : one.dataset.taught);
      if (!pressed) field("labels").value = "";
    }
    if (section() && ("fill" in one.dataset || ("taught" in one.dataset && !("act" in one.dataset)))) find("#see-form [data-ways=name] [data-key]")?.click();
  });
  // Labels that are typed take the place of those that were taught.
  const teach = (name) => {
    field("taught").value = name;
    for (const one of all("#see-form [data-taught]")) one.setAttribute("aria-pressed", String(one.dataset.taught === name));
  };
  document.addEventListener("input", (event) => {
    if (event.target === field("labels")) teach("");
    if (event.target === field("prompt")) delete event.target.dataset.own;
  });
  document.addEventListener("keydown", (event) => {
    if (!event.target.matches?.("#see-stage [data-see]")) return;
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key], next = by && find(`#see-stage [data-see="${at() + by}"]`);
    if (!next) return;
    event.preventDefault();
    next.focus();
    look(at() + by);
  });
})();
