// The Library's wall by keyboard: from picture to picture, and a key for each deed.
(() => {
  const make = ({ element, root, find, shots, chosen, choose, current, toggle, walk, open, undo, deeds, parts, isOwn, isBin }) => {
    const text = find(".seek").elements.text;
    const beyond = (shot, by) => { // the nearest picture of the row above or below
      const here = shot.getBoundingClientRect(), middle = here.left + here.width / 2;
      let best = null, near = Infinity, row = null;
      for (const one of shots()) {
        const at = one.getBoundingClientRect();
        if (by > 0 ? at.top <= here.top + 4 : at.top >= here.top - 4) continue;
        if (row === null || (by > 0 ? at.top < row - 4 : at.top > row + 4)) { row = at.top; near = Infinity; }
        if (Math.abs(at.top - row) > 4) continue;
        const off = Math.abs(at.left + at.width / 2 - middle);
        if (off < near) { near = off; best = one; }
      }
      return best;
    };
    const step = (key, shot) => {
      const list = shots(), at = list.indexOf(shot);
      return { ArrowLeft: () => list[at - 1], ArrowRight: () => list[at + 1], ArrowUp: () => beyond(shot, -1), ArrowDown: () => beyond(shot, 1), Home: () => list[0], End: () => list.at(-1) }[key]?.();
    };
    const keys = { s: "star", Delete: "bin", Backspace: "bin", c: "compare", m: "like", e: "stack", "?": "keys", "/": "search" };
    document.addEventListener("keydown", (event) => {
      if (!element.offsetParent || event.isComposing) return;
      const writing = event.target.matches?.("input:not([type=range], [type=radio]), textarea, select"), control = event.ctrlKey || event.metaKey;
      if (event.key === "Escape") {
        const list = find("details.menu[open]");
        if (list) { list.open = false; list.querySelector("summary").focus(); event.stopPropagation(); }
        else if (!parts.isOpen() && chosen.size) choose([]);
        else if (writing && event.target === text && text.value) deeds.clear();
        return;
      }
      if (writing || event.altKey) return;
      if (control && event.key.toLowerCase() === "z") { event.preventDefault(); undo(); return; }
      if (parts.isOpen()) { parts.key(event, deeds); return; }
      if (control && event.key.toLowerCase() === "a" && root.contains(document.activeElement)) { event.preventDefault(); choose(shots().map((one) => one.dataset.id)); return; }
      if (control) return;
      const shot = current(), to = shot && step(event.key, shot);
      if (shot && event.key === " ") { event.preventDefault(); toggle(shot); return; }
      if (shot && event.key.startsWith("Arrow") || to) {
        event.preventDefault();
        if (!to) return;
        walk(shot, to, event.shiftKey);
        return;
      }
      const inside = root.contains(document.activeElement) || document.activeElement === document.body;
      const deed = inside && keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
      if (!deed) return;
      event.preventDefault();
      if (deed === "search") text.focus();
      else if (deed === "stack") { if (shot?.dataset.stack) open(shot); }
      else if (deed === "bin" && isBin()) deeds.restore();
      else if (deed === "bin" && !isOwn()) return;
      else deeds[deed]();
    });
  };
  Object.assign(window.atelier, { libraryKeys: make });
})();
