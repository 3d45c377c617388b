// The mask painter: a brush over a picture's frame, with undo and redo, and a closer look by wheel, pinch, buttons or keys.
(() => {
  const TINT = "#F0624D", MOST_STEPS = 40, CLOSEST = 8; // steps back that are kept; times the picture's size
  const brushes = [];

  // A mask is opaque where the picture may change. It belongs to the form, not to a run. `frameOf` gives the picture's frame,
  // `tools` the brush's buttons, and `tell` gets the mask as a data URI when it has changed.
  const make = (frameOf, tools, tell) => {
    const mask = Object.assign(document.createElement("canvas"), { className: "layer mask", width: 0, height: 0 });
    const pen = mask.getContext("2d", { willReadFrequently: true });
    const brush = { layer: mask, on: false, erase: false, own: "" };
    const view = { zoom: 1, x: 0, y: 0 }; // x and y: where the picture's corner is, in pixels of the frame
    const fingers = new Map(); // pointer -> [x, y]
    let past = [], future = [], down = null, held = null; // what is being dragged, and from where
    const page = () => Object.assign(document.createElement("canvas"), { width: mask.width, height: mask.height });
    const painted = () => mask.width > 0 && pen.getImageData(0, 0, mask.width, mask.height).data.some((level, at) => at % 4 === 3 && level > 8);
    const fit = () => {
      const picture = frameOf()?.querySelector("img.now");
      if (!picture?.naturalWidth) return mask.width > 0; // one that still loads: the mask stays as large as it was
      const share = Math.min(1, 512 / Math.max(picture.naturalWidth, picture.naturalHeight));
      const [width, height] = [Math.round(picture.naturalWidth * share), Math.round(picture.naturalHeight * share)];
      if (mask.width === width && mask.height === height) return true;
      const before = mask.width ? page() : null;
      before?.getContext("2d").drawImage(mask, 0, 0);
      Object.assign(mask, { width, height });
      if (before) pen.drawImage(before, 0, 0, width, height);
      return true;
    };
    const keep = () => {
      let uri = "";
      if (painted()) {
        const whole = page(), ink = whole.getContext("2d");
        ink.drawImage(mask, 0, 0);
        for (const [how, colour] of [["source-in", "#fff"], ["destination-over", "#000"]]) {
          ink.globalCompositeOperation = how;
          ink.fillStyle = colour;
          ink.fillRect(0, 0, whole.width, whole.height);
        }
        uri = whole.toDataURL("image/png");
      }
      brush.own = uri;
      tell(uri);
      brush.show();
    };

    // ---- undo and redo

    const copy = () => { const one = page(); one.getContext("2d").drawImage(mask, 0, 0); return one; };
    const remember = () => { past = [...past, copy()].slice(-MOST_STEPS); future = []; };
    const put = (picture) => {
      pen.globalCompositeOperation = "source-over";
      pen.clearRect(0, 0, mask.width, mask.height);
      if (picture.width) pen.drawImage(picture, 0, 0, mask.width, mask.height);
    };
    brush.step = (back) => {
      const [from, to] = back ? [past, future] : [future, past];
      if (!from.length || !fit()) return;
      to.push(copy());
      put(from.pop());
      keep();
    };

    // ---- a closer look

    const lay = () => {
      const place = frameOf(), box = tools();
      if (place) {
        const { width, height } = place.getBoundingClientRect();
        view.x = Math.min(0, Math.max(width * (1 - view.zoom), view.x));
        view.y = Math.min(0, Math.max(height * (1 - view.zoom), view.y));
        for (const [name, value] of [["zoom", view.zoom], ["left", `${view.x}px`], ["top", `${view.y}px`]]) place.style.setProperty(`--${name}`, value);
        place.classList.toggle("close", view.zoom > 1);
      }
      if (box) box.querySelector("[data-zoom-told]").textContent = `${Math.round(100 * view.zoom)} %`;
    };
    const zoomTo = (zoom, [x, y] = []) => {
      const box = frameOf()?.getBoundingClientRect();
      if (!box) return;
      const now = Math.min(CLOSEST, Math.max(1, zoom)), [left, top] = [(x ?? box.left + box.width / 2) - box.left, (y ?? box.top + box.height / 2) - box.top];
      view.x = left - (left - view.x) * now / view.zoom;
      view.y = top - (top - view.y) * now / view.zoom;
      view.zoom = now;
      lay();
    };
    const move = (right, below) => { view.x += right; view.y += below; lay(); };
    mask.addEventListener("wheel", (event) => {
      if (view.zoom === 1 && event.deltaY > 0 && !event.ctrlKey) return; // the page scrolls
      event.preventDefault();
      if (event.shiftKey) { move(-event.deltaY - event.deltaX, 0); return; }
      const pixels = event.deltaY * (event.deltaMode ? 24 : 1);
      zoomTo(view.zoom * Math.exp(-pixels / (event.ctrlKey ? 100 : 400)), [event.clientX, event.clientY]);
    }, { passive: false });

    // ---- strokes: one finger, pen or mouse button paints, two fingers or the middle button move the picture

    const where = (event) => {
      const box = mask.getBoundingClientRect();
      return [(event.clientX - box.left) / box.width * mask.width, (event.clientY - box.top) / box.height * mask.height];
    };
    const stroke = (event) => {
      const [x, y] = where(event);
      pen.globalCompositeOperation = brush.erase ? "destination-out" : "source-over";
      Object.assign(pen, { strokeStyle: TINT, lineCap: "round", lineJoin: "round" });
      pen.lineWidth = Number(tools().querySelector("[data-brush-size]").value) / 100 * Math.max(mask.width, mask.height) / view.zoom;
      pen.beginPath();
      pen.moveTo(...(down || [x, y]));
      pen.lineTo(x + .01, y);
      pen.stroke();
      down = [x, y];
    };
    const spread = () => {
      const [[ax, ay], [bx, by]] = [...fingers.values()];
      return { apart: Math.hypot(ax - bx, ay - by), middle: [(ax + bx) / 2, (ay + by) / 2] };
    };
    mask.addEventListener("pointerdown", (event) => {
      if (!fit()) return;
      event.preventDefault();
      if (event.pointerType === "touch") fingers.set(event.pointerId, [event.clientX, event.clientY]);
      if (fingers.size === 2) {
        if (down) { down = null; put(past.pop()); } // what one finger drew before the other came
        held = spread();
      } else if (event.button === 1) held = { middle: [event.clientX, event.clientY] };
      else if (!event.button && !held) { remember(); down = null; stroke(event); }
    });
    window.addEventListener("pointermove", (event) => {
      if (fingers.has(event.pointerId)) fingers.set(event.pointerId, [event.clientX, event.clientY]);
      if (held) {
        const now = fingers.size > 1 ? spread() : { middle: [event.clientX, event.clientY] };
        if (!fingers.size || fingers.size > 1) {
          move(now.middle[0] - held.middle[0], now.middle[1] - held.middle[1]);
          if (now.apart && held.apart) zoomTo(view.zoom * now.apart / held.apart, now.middle);
          held = now;
        }
      } else if (down) for (const one of event.getCoalescedEvents?.() || [event]) stroke(one);
    });
    for (const end of ["pointerup", "pointercancel"])
      window.addEventListener(end, (event) => {
        fingers.delete(event.pointerId);
        if (down) { down = null; keep(); }
        if (!fingers.size) held = null;
      });
    const flood = (how) => {
      if (!fit()) return;
      remember();
      pen.globalCompositeOperation = how;
      pen.fillStyle = TINT;
      pen.fillRect(0, 0, mask.width, mask.height);
      keep();
    };

    // ---- what the page asks

    brush.show = () => {
      const box = tools();
      if (!box) return;
      const place = frameOf();
      box.hidden = !place;
      box.classList.toggle("on", brush.on);
      box.classList.toggle("set", Boolean(brush.own));
      box.querySelector("[data-paint]").setAttribute("aria-pressed", String(brush.on));
      box.querySelector("[data-erase]").setAttribute("aria-pressed", String(brush.erase));
      for (const [name, steps] of [["undo", past], ["redo", future]]) box.querySelector(`[data-${name}]`).setAttribute("aria-disabled", String(!steps.length));
      if (brush.on && place) {
        if (mask.parentNode !== place) place.append(mask);
        const picture = place.querySelector("img.now");
        fit();
        if (!picture?.naturalWidth) picture?.addEventListener("load", fit, { once: true });
      } else { mask.remove(); Object.assign(view, { zoom: 1, x: 0, y: 0 }); }
      lay();
    };
    // A mask that comes from elsewhere, as a data URI; the empty text for none.
    brush.set = (uri) => {
      if (uri === brush.own) return;
      brush.own = uri || "";
      past = [];
      future = [];
      if (!uri) { pen.clearRect(0, 0, mask.width, mask.height); brush.show(); return; }
      const picture = new Image();
      picture.onload = () => {
        Object.assign(mask, { width: picture.naturalWidth, height: picture.naturalHeight });
        pen.globalCompositeOperation = "source-over";
        pen.drawImage(picture, 0, 0);
        const pixels = pen.getImageData(0, 0, mask.width, mask.height);
        for (let at = 0; at < pixels.data.length; at += 4) pixels.data.set([240, 98, 77, pixels.data[at]], at);
        pen.putImageData(pixels, 0, 0);
        brush.show();
      };
      picture.src = uri;
    };
    // The picture is another one: the mask takes its proportions.
    brush.refit = () => { if (brush.own && painted() && fit()) keep(); };
    brush.press = (button) => {
      if ("paint" in button) { brush.on = !brush.on; brush.show(); }
      if ("erase" in button) { brush.erase = !brush.erase; brush.show(); }
      if ("invert" in button) flood("source-out");
      if ("clear" in button) flood("destination-out");
      if ("undo" in button) brush.step(true);
      if ("redo" in button) brush.step(false);
      if ("zoom" in button) zoomTo(Number(button.zoom) ? view.zoom * 1.5 ** Number(button.zoom) : 1);
    };
    brush.active = () => brush.on && Boolean(mask.isConnected && mask.offsetParent);
    brushes.push(brush);
    return brush;
  };

  // Ctrl+Z and Ctrl+Shift+Z or Ctrl+Y step through what was painted; + and - look closer and from further away, 0 at all of it.
  const typing = (element) => element?.matches?.("input:not([type=radio], [type=checkbox], [type=range]), textarea, select, [contenteditable=true]");
  document.addEventListener("keydown", (event) => {
    const brush = brushes.find((one) => one.active());
    if (!brush || typing(event.target) || event.altKey) return;
    const key = event.key.toLowerCase(), control = event.ctrlKey || event.metaKey;
    if (control && (key === "z" || key === "y")) { event.preventDefault(); brush.step(key === "z" && !event.shiftKey); }
    const zoom = { "+": "1", "=": "1", "-": "-1", 0: "0" }[key];
    if (!control && zoom) { event.preventDefault(); brush.press({ zoom }); }
  });
  Object.assign(window.atelier, { brush: make });
})();
