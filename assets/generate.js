// Generate: Diffusion's mask, painted over the picture to start from or read from a file.
(() => {
  const { find, write } = window.atelier;
  const MOST_SIDE = 2048; // pixels

  // A file's mask in grey, as a data URI: its opacity where some of it is transparent, else its brightness.
  const maskOf = async (file) => {
    const picture = await createImageBitmap(file);
    const share = Math.min(1, MOST_SIDE / Math.max(picture.width, picture.height));
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

  // `element` holds the setting, as a hidden field, and what `mask` of html/generate.py lays out.
  window.atelier.drawMask = (element) => {
    const place = element.querySelector(".paints"), now = place.querySelector("img.now"), box = element.querySelector("[name=mask]");
    const frame = () => (now.getAttribute("src") ? now.parentNode : null);
    const brush = window.atelier.brush(frame, () => place.querySelector("[data-brush]"), (uri) => write(box, uri));
    const follow = () => {
      const source = find("#diffuse-image img")?.src || "";
      if (source === (now.getAttribute("src") || "")) return;
      if (source) now.src = source;
      else { now.removeAttribute("src"); brush.on = false; brush.set(""); write(box, ""); }
      brush.show();
    };
    place.addEventListener("input", (event) => event.stopPropagation()); // what is in it is no setting
    place.addEventListener("click", ({ target }) => {
      const button = target.closest("button");
      if (button) brush.press(button.dataset);
    });
    now.addEventListener("load", () => {
      now.parentNode.style.setProperty("--ratio", now.naturalWidth / now.naturalHeight);
      brush.refit();
      brush.show();
    });
    element.addEventListener("filled", () => brush.set(box.value));
    place.querySelector("[type=file]").addEventListener("change", async ({ target }) => {
      const [file] = target.files;
      target.value = "";
      const uri = file ? await maskOf(file).catch(() => "") : "";
      if (uri) { write(box, uri); brush.set(uri); }
    });
    new MutationObserver(follow).observe(find("#from-picture"), { childList: true, subtree: true, attributes: true, attributeFilter: ["src"] });
    follow();
    brush.set(box.value);
  };
})();
