// Edit: a form of our own, a wipe between before and after, a look back at what had been learned.
(() => {
  const { find, entriesIn, read, put, watching } = window.atelier;
  const entries = (name) => entriesIn("#edit-controls", name);

  const editFrame = () => find("#proof .frame:not(.waiting)");
  const editBrush = window.atelier.brush(editFrame, () => find("#edit-brush [data-brush]"), () => soon());
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
      window.atelier.inWords(element);
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
      const first = document.documentElement.dataset.lang === "zh" && !pending && element.querySelector(".zh [data-from]");
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
    const one = event.target.closest?.("#edit :is([data-strength], [data-choose], [data-present]), #edit-brush button");
    if (!one) return;
    if (one.closest("#edit-brush")) {
      if ("paint" in one.dataset && !editBrush.on) lookAt(NaN);
      editBrush.press(one.dataset);
      return;
    }
    if ("choose" in one.dataset) find(window.atelier.places.edit)?.click();
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
