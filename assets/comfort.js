// What makes the page comfortable: the title tells of a run, a notification when it is done, earlier prompts by the arrow keys,
// the keys on "?", and a first visit in three steps.
(() => {
  const { find, kept } = window.atelier;
  const words = (element) => element?.querySelector(document.documentElement.dataset.lang === "zh" ? ".zh" : ".en")?.textContent.trim() || "";

  // The title: how far a run is, and that one is done until somebody looks.
  const NAME = "Atelier", LONG = 20_000; // milliseconds after which a run is worth a notification
  let begun = 0, title = "";
  const running = () => find("[data-job] .bar[role=progressbar]");
  const ended = () => {
    const failed = Boolean(find("section.failed[data-job], section.stage.failed"));
    title = document.hidden ? `${failed ? "!" : "✓"} ${NAME}` : NAME;
    if (!document.hidden || kept.get("tell") !== "yes" || !("Notification" in window) || Notification.permission !== "granted") return;
    new Notification(NAME, { body: words(find(failed ? "#told-failed" : "#told-done")), tag: "atelier-run", icon: find("link[rel~=icon]")?.href });
  };
  setInterval(() => {
    const bar = running(), now = performance.now();
    if (bar) {
      begun ||= now;
      title = `${bar.getAttribute("aria-valuenow")}% · ${NAME}`;
      if (now - begun > LONG && !kept.get("tell") && "Notification" in window && Notification.permission === "default") show("#tell", true);
    } else if (begun) { begun = 0; show("#tell", false); ended(); }
    else if (!document.hidden) title = NAME;
    if (title && document.title !== title) document.title = title;
  }, 700);
  const show = (selector, shown) => { const band = find(selector); if (band) band.hidden = !shown; };

  // Earlier prompts: arrow up at the beginning of the box, arrow down at its end.
  const PROMPTS = "#prompt textarea, #opt-prompt textarea", MOST = 50;
  const earlier = () => { try { const list = JSON.parse(kept.get("prompts")); return Array.isArray(list) ? list.filter((one) => typeof one === "string") : []; } catch { return []; } };
  const remember = () => {
    for (const box of document.querySelectorAll(PROMPTS)) {
      const prompt = box.value.trim();
      if (!box.offsetParent || !prompt || earlier()[0] === prompt) continue;
      kept.set("prompts", JSON.stringify([prompt, ...earlier().filter((one) => one !== prompt)].slice(0, MOST)));
    }
    place = -1;
  };
  let place = -1, draft = "";
  const write = (box, text) => {
    Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, "value").set.call(box, text);
    box.dispatchEvent(new InputEvent("input", { bubbles: true }));
    box.setSelectionRange(text.length, text.length);
  };
  window.atelier.browsing = () => place >= 0; // then Down is the later prompt, not what is offered
  document.addEventListener("input", (event) => { if (event.isTrusted && event.target.matches?.(PROMPTS)) place = -1; });
  document.addEventListener("keydown", (event) => {
    const box = event.target;
    if (event.defaultPrevented || event.isComposing || event.shiftKey || event.altKey || event.ctrlKey || event.metaKey) return;
    if (!box.matches?.(PROMPTS)) return;
    const list = earlier(), by = { ArrowUp: 1, ArrowDown: -1 }[event.key];
    const browsing = place >= 0, atEdge = by > 0 ? box.selectionEnd === 0 || !box.value : box.selectionStart === box.value.length;
    if (!by || (!browsing && (by < 0 || !atEdge)) || place + by >= list.length) return;
    event.preventDefault();
    if (!browsing) draft = box.value;
    const next = place + by;
    write(box, next < 0 ? draft : list[next]);
    place = next;
  });
  document.addEventListener("click", (event) => { if (event.target.closest?.("#go, #optimize-buttons [data-key]")) remember(); }, true);

  // The keys, in a dialog: "?" outside a field, or the button.
  const typing = (element) => element?.matches?.("input:not([type=radio], [type=checkbox], [type=range]), textarea, select, [contenteditable=true]");
  document.addEventListener("keydown", (event) => {
    if (event.key !== "?" || event.defaultPrevented || typing(event.target) || event.ctrlKey || event.metaKey) return;
    if (find("#library")?.offsetParent) return; // which has keys of its own
    event.preventDefault();
    find("#keys")?.showModal();
  });

  // The first visit: three steps, one at a time, each beside what it is about.
  const STEPS = ["", "#go", "#tabs .tab-container"]; // the prompt has the focus already
  const step = (number) => {
    for (const one of document.querySelectorAll(".pointed")) one.classList.remove("pointed");
    const band = find("#welcome");
    if (!band) return;
    band.hidden = !(number in STEPS);
    if (band.hidden) { kept.set("welcomed", "yes"); return; }
    band.dataset.step = number;
    for (const part of band.querySelectorAll("[data-part]")) part.hidden = Number(part.dataset.part) !== number;
    band.querySelector("[data-welcome=next]").hidden = number === STEPS.length - 1;
    if (STEPS[number]) find(STEPS[number])?.classList.add("pointed");
  };
  document.addEventListener("click", (event) => {
    const at = event.target.closest?.("[data-welcome], [data-tell], [data-keys]");
    if (!at) { if (event.target.closest?.("#go") && find("#welcome:not([hidden])")) step(2); return; }
    if (at.dataset.welcome === "next") step(Number(find("#welcome").dataset.step) + 1);
    if (at.dataset.welcome === "skip") step(-1);
    if ("keys" in at.dataset) { const keys = find("#keys"); if (keys?.open) keys.close(); else keys?.showModal(); }
    if ("tell" in at.dataset) {
      kept.set("tell", at.dataset.tell);
      show("#tell", false);
      if (at.dataset.tell === "yes") Notification.requestPermission().then((answer) => { if (answer !== "granted") kept.set("tell", "no"); });
    }
  });
  Object.assign(window.atelier, {
    welcome() { if (!kept.get("welcomed")) step(0); },
  });
})();
