// Optimize and Guide: two layers over the picture (a look back, a mask), and Guide's part of the form.
(() => {
  const { find, kept, word, write, entriesIn, read, put, watching } = window.atelier;
  const section = () => find("#canvas section");
  const frame = () => find("#canvas figure:not([hidden]) .frame:not(.waiting)") || find("#canvas section > .frame:not(.waiting)");

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

  const maskBox = () => find("#opt-mask textarea, #opt-mask input");
  const brush = window.atelier.brush(frame, () => find("#brush [data-brush]"), (uri) => write(maskBox(), uri));

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
    const at = event.target.closest?.("[data-scrub], [data-now], [data-back], [data-view], #brush button, #optimize-buttons button");
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
    if (at.closest("#brush")) {
      if ("paint" in at.dataset && !brush.on) lookBack(NaN);
      brush.press(at.dataset);
    }
  });
  document.addEventListener("input", (event) => { if (event.target.matches?.("#timeline input")) lookBack(nearest(Number(event.target.value))); });
  document.addEventListener("keydown", (event) => {
    if (!event.target.matches?.("#timeline input")) return;
    const by = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, Home: -1e6, End: 1e6 }[event.key];
    if (by) { event.preventDefault(); walk(by); }
  });

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
    guideForm(element) {
      window.atelier.inWords(element);
      setTimeout(() => {
        if (waiting) window.atelier.fillGuide(waiting);
        else if (!filled && kept.get("steer")) put(entriesIn(GUIDE, "steer"), kept.get("steer"));
        waiting = "";
      });
    },
  });
})();
