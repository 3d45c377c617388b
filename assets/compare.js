// Two pictures under a slider, and others to choose from: in the Library, and for the results of every tool.
(() => {
  // The panes of a dialog, and the two of them that the slider moves between; the one clicked last comes second.
  const sliding = (pair) => {
    let last = [];
    const lay = () => {
      const layers = pair.querySelectorAll(".over img");
      last.forEach((pane, k) => { Object.assign(layers[k], { src: pane.querySelector("img").src, alt: pane.querySelector("img").alt }); });
      for (const one of pair.querySelectorAll(".pane")) one.setAttribute("aria-pressed", String(last.includes(one)));
    };
    const wipe = () => {
      last = Array.from(pair.querySelectorAll(".pane[aria-pressed=true]"));
      const way = pair.querySelector("[name=library-way]:checked")?.value || "slide";
      pair.classList.toggle("sliding", way === "slide");
      pair.querySelector(".versus").hidden = way !== "slide";
      const told = pair.querySelector(".pick");
      if (told) told.hidden = way !== "slide";
      lay();
    };
    pair.addEventListener("change", (event) => { if (event.target.name === "library-way") wipe(); });
    pair.addEventListener("input", (event) => { if (event.target.matches(".wipe")) event.target.parentNode.style.setProperty("--cut", `${event.target.value}%`); });
    pair.addEventListener("click", (event) => {
      const pane = event.target.closest(".pane");
      if (!pane) return;
      if (!pair.classList.contains("sliding")) pair.querySelector("[value=slide]").click();
      if (!last.includes(pane)) { last = [last.at(-1), pane]; lay(); }
      pair.querySelector(".wipe").focus();
    });
    return wipe;
  };

  // The pictures of the run that is looked at, the one shown first, then the first pictures of the visitor's last runs.
  const MOST = 12;
  const picturesIn = (tab) => {
    const places = [".stage figure:not([hidden]) .frame img.now", ".stage figure:not([hidden]) .frame img", ".stage figure .frame img", ".plate > .frame img.now", ".plate .before", ".strengths:not(.live) img", ".results img", ".earlier .strip img"];
    const found = new Map();
    for (const place of places)
      for (const one of tab.querySelectorAll(place)) {
        const address = one.getAttribute("src"), title = one.alt || one.closest("button")?.title || "";
        if (address && !one.matches(".layer") && !found.has(address)) found.set(address, title);
      }
    return [...found].slice(0, MOST);
  };
  let ready = null; // lays the dialog's slider
  const open = (tab) => {
    const dialog = document.querySelector("#beside"), pictures = picturesIn(tab);
    if (pictures.length < 2) return;
    ready ||= sliding(dialog);
    const panes = dialog.querySelector(".panes");
    panes.replaceChildren(...pictures.map(([address, title], k) => {
      const pane = Object.assign(document.createElement("button"), { type: "button", className: "pane", title });
      pane.setAttribute("aria-pressed", String(k < 2));
      pane.append(Object.assign(document.createElement("img"), { src: address, alt: title }));
      return pane;
    }));
    dialog.showModal();
    ready();
    dialog.querySelector(".wipe").focus();
  };
  document.addEventListener("click", (event) => {
    const at = event.target.closest?.("[data-compare], #beside .close"), dialog = document.querySelector("#beside");
    if (at && "compare" in at.dataset) open(at.closest("[role=tabpanel]") || document);
    else if (at || event.target === dialog) dialog.close();
  });
  Object.assign(window.atelier, { sliding });
})();
