// The Library's dialogs: one picture large with where it comes from, and two to four beside each other.
(() => {
  const make = ({ root, ask, find, all, shots, shotOf, focus }) => {
    const big = find("dialog.big"), wipe = window.atelier.sliding(find("dialog.beside"));
    let turn = 0, at = ""; // the last question, and the picture that is shown

    const isOpen = () => Boolean(root.querySelector("dialog[open]"));
    const show = (selector, inside) => {
      const dialog = find(selector);
      const said = dialog.querySelector(".toast");
      dialog.innerHTML = inside;
      if (said) dialog.append(said);
      if (!dialog.open) dialog.showModal();
    };
    const close = () => { for (const one of all("dialog[open]")) one.close(); };

    // ---- one picture

    const view = async (id) => {
      const now = ++turn, answer = await ask("large", { id });
      if (!answer || now !== turn) return;
      const held = big.open && document.activeElement, again = held && (held.name ? `[name="${held.name}"]` : held.dataset?.do ? `[data-do="${held.dataset.do}"]` : "");
      at = id;
      show("dialog.big", answer.html);
      const list = shots(), place = list.findIndex((one) => one.dataset.id === id);
      for (const one of big.querySelectorAll("[data-do=turn]")) one.disabled = !list[place + Number(one.dataset.by)];
      (again && big.querySelector(`${again}:not(:disabled)`) || big.querySelector(".close"))?.focus();
      const family = await ask("family", { id });
      if (family && now === turn) big.querySelector("[data-fill=family]").innerHTML = family.html;
    };
    const step = async (by) => {
      const list = shots(), next = list[list.findIndex((one) => one.dataset.id === at) + by];
      if (next) await view(next.dataset.id);
    };
    // The picture that is shown is about to leave the wall: the one beside it is shown, or none.
    const turnAway = async (ids) => {
      const list = shots(), place = list.findIndex((one) => one.dataset.id === at), next = list[place + 1] || list[place - 1];
      if (place < 0 || !next || ids.includes(next.dataset.id)) close(); else await view(next.dataset.id);
    };
    const again = () => { if (big.open) view(at); }; // after a deed
    big.addEventListener("close", () => { turn++; focus(shotOf(at)); });

    // ---- beside each other

    const compare = async (ids) => {
      const answer = await ask("beside", { ids });
      if (!answer) return;
      show("dialog.beside", answer.html);
      wipe();
    };
    for (const dialog of all("dialog")) {
      dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
      dialog.addEventListener("close", () => { const said = dialog.querySelector(".toast"); if (said) root.append(said); });
    }

    // ---- its keys

    const key = (event, deeds) => {
      if (!big.open || event.ctrlKey || event.metaKey || event.target.matches("input")) return;
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key], name = { s: "star", Delete: root.dataset.place === "bin" ? "restore" : "bin", m: "like" }[event.key.length === 1 ? event.key.toLowerCase() : event.key];
      if (by) { event.preventDefault(); step(by); }
      if (name && (name !== "bin" || root.dataset.own)) { event.preventDefault(); deeds[name](); }
    };
    return { isOpen, show, close, view, turn: step, turnAway, again, compare, key };
  };
  Object.assign(window.atelier, { libraryLarge: make });
})();
