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

  // Ctrl+Enter or Cmd+Enter does the next thing, from inside the prompt box and from every setting below it.
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || event.isComposing) return;
    const place = event.target.closest?.("#composer, #instrument, #plate-side");
    if (!place) return;
    event.preventDefault();
    event.stopPropagation();
    document.querySelector(place.id === "composer" ? "#go" : "#transport [data-key]")?.click();
  }, true);

  // A file dropped anywhere is a picture with settings, on Optimize the picture to start from, unless it lands on a field that takes files itself.
  const carriesFiles = (event) => Array.from(event.dataTransfer?.types || []).includes("Files");
  const elsewhere = (event) => carriesFiles(event) && !event.target.closest?.("#drop, #knob-image, #opt-init, #opt-image_prompts");
  let depth = 0;
  const hover = (change) => { depth = Math.max(0, depth + change); root.classList.toggle("dropping", depth > 0); };
  document.addEventListener("dragenter", (event) => carriesFiles(event) && hover(1));
  document.addEventListener("dragleave", (event) => carriesFiles(event) && hover(-1));
  document.addEventListener("dragover", (event) => elsewhere(event) && event.preventDefault());
  document.addEventListener("drop", (event) => {
    hover(-depth);
    if (!elsewhere(event)) return;
    event.preventDefault();
    const files = new DataTransfer();
    files.items.add(event.dataTransfer.files[0]);
    const optimizing = document.querySelector("#workbench")?.offsetParent;
    if (optimizing) document.querySelector("#opt-init button[aria-label='Remove Image']")?.click(); // one picture at a time
    const give = (tries) => {
      const input = document.querySelector(`${optimizing ? "#opt-init" : "#drop"} input[type=file]`);
      if (!input) { if (tries) setTimeout(give, 50, tries - 1); return; }
      input.files = files.files;
      input.dispatchEvent(new Event("change", { bubbles: true }));
    };
    give(20);
  });

  // ---- Optimize: two layers over the picture (a look back, a mask), and the prompt as rows with weights

  const find = (selector) => document.querySelector(selector);
  const section = () => find("#canvas section");
  const frame = () => find("#canvas figure:not([hidden]) .frame:not(.waiting)") || find("#canvas section > .frame:not(.waiting)");
  // A value written as if it were typed, so that the page's own state follows.
  const write = (box, value) => {
    if (!box || box.value === value) return;
    Object.getOwnPropertyDescriptor(Object.getPrototypeOf(box), "value").set.call(box, value);
    box.dispatchEvent(new Event("input", { bubbles: true }));
  };

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
    told.querySelector("[data-act=fork]").dataset.step = back.step;
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

  // The mask: opaque where the picture may change. It belongs to the form, not to a run.
  const mask = Object.assign(document.createElement("canvas"), { className: "layer mask", width: 0, height: 0 });
  const pen = mask.getContext("2d", { willReadFrequently: true });
  const brush = { on: false, erase: false, down: null, own: "" };
  const TINT = "#F0624D";
  const maskBox = () => find("#opt-mask textarea, #opt-mask input");
  const painted = () => mask.width > 0 && pen.getImageData(0, 0, mask.width, mask.height).data.some((level, at) => at % 4 === 3 && level > 8);
  const fitMask = () => {
    const picture = frame()?.querySelector("img.now");
    if (!picture?.naturalWidth) return false;
    const share = Math.min(1, 512 / Math.max(picture.naturalWidth, picture.naturalHeight));
    const [width, height] = [Math.round(picture.naturalWidth * share), Math.round(picture.naturalHeight * share)];
    if (mask.width === width && mask.height === height) return true;
    const before = mask.width ? Object.assign(document.createElement("canvas"), { width: mask.width, height: mask.height }) : null;
    before?.getContext("2d").drawImage(mask, 0, 0);
    Object.assign(mask, { width, height });
    if (before) pen.drawImage(before, 0, 0, width, height);
    return true;
  };
  const keepMask = () => {
    let uri = "";
    if (painted()) {
      const page = Object.assign(document.createElement("canvas"), { width: mask.width, height: mask.height });
      const ink = page.getContext("2d");
      ink.drawImage(mask, 0, 0);
      for (const [how, colour] of [["source-in", "#fff"], ["destination-over", "#000"]]) {
        ink.globalCompositeOperation = how;
        ink.fillStyle = colour;
        ink.fillRect(0, 0, page.width, page.height);
      }
      uri = page.toDataURL("image/png");
    }
    brush.own = uri;
    write(maskBox(), uri);
    showBrush();
  };
  const showBrush = () => {
    const box = find("[data-brush]");
    if (!box) return;
    const place = frame();
    box.hidden = !place;
    box.classList.toggle("on", brush.on);
    box.classList.toggle("set", Boolean(brush.own));
    box.querySelector("[data-paint]").setAttribute("aria-pressed", String(brush.on));
    box.querySelector("[data-erase]").setAttribute("aria-pressed", String(brush.erase));
    if (brush.on && place) {
      if (mask.parentNode !== place) place.append(mask);
      const picture = place.querySelector("img.now");
      if (!fitMask()) picture?.addEventListener("load", fitMask, { once: true });
    } else mask.remove();
  };
  const where = (event) => {
    const box = mask.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width * mask.width, (event.clientY - box.top) / box.height * mask.height];
  };
  const stroke = (event) => {
    const [x, y] = where(event);
    pen.globalCompositeOperation = brush.erase ? "destination-out" : "source-over";
    Object.assign(pen, { strokeStyle: TINT, lineCap: "round", lineJoin: "round" });
    pen.lineWidth = Number(find("[data-brush-size]").value) / 100 * Math.max(mask.width, mask.height);
    pen.beginPath();
    pen.moveTo(...(brush.down || [x, y]));
    pen.lineTo(x + .01, y);
    pen.stroke();
    brush.down = [x, y];
  };
  mask.addEventListener("pointerdown", (event) => {
    if (event.button || !fitMask()) return;
    event.preventDefault();
    brush.down = null;
    stroke(event);
  });
  window.addEventListener("pointermove", (event) => { if (brush.down) for (const one of event.getCoalescedEvents?.() || [event]) stroke(one); });
  for (const end of ["pointerup", "pointercancel"]) window.addEventListener(end, () => { if (brush.down) { brush.down = null; keepMask(); } });
  const flood = (how) => {
    if (!fitMask()) return;
    pen.globalCompositeOperation = how;
    pen.fillStyle = TINT;
    pen.fillRect(0, 0, mask.width, mask.height);
    keepMask();
  };

  // The prompt as rows. The text is the truth: a slider rewrites it, and whatever else changes it redraws the rows.
  const promptBox = () => find("#opt-prompt textarea");
  let written = null; // what the rows wrote themselves
  const muted = new Map(); // text -> its weight before it was left out
  const word = (name, fact = "") => (find(`[data-words] [data-word=${name}]`)?.innerHTML || "").replaceAll("#", String(fact));
  const plain = (name) => find(`[data-words] [data-word=${name}] .${root.dataset.lang}`)?.textContent || "";
  const split = (text) => { // as pipelines/prompts.py reads it: numbers from the right
    const at = text.lastIndexOf(":"), tail = text.slice(at + 1).trim();
    const good = at > 0 && text.slice(0, at).trim() && /^-?(?:0|[1-9]\d?)?(?:\.\d+)?$/.test(tail) && /\d/.test(tail) && Math.abs(tail) <= 10;
    return good ? [text.slice(0, at).trim(), Number(tail)] : [text, null];
  };
  const target = (text) => {
    const [head, last] = split(text.trim());
    if (last === null) return { text: head, weight: 1, stop: null };
    const [first, weight] = split(head);
    return weight === null ? { text: head, weight: last, stop: null } : { text: first, weight, stop: Math.abs(last) };
  };
  const read = (text) => text.split("^").map((scene) => {
    const [, words, step] = scene.match(/^([^]*\S)\s*@\s*(\d{1,6})\s*$/) || [null, scene, ""];
    return { step, targets: words.split("|").filter((one) => one.trim()).map(target) };
  });
  const say = (scenes) => scenes.map(({ step, targets }) => targets.map(({ text, weight, stop }) =>
    text + (weight === 1 && stop === null ? "" : `:${weight}`) + (stop === null ? "" : `:${stop}`)).join(" | ") + (step && ` @${step}`)).join(" ^ ");
  let story = [];
  const rewrite = () => { written = say(story); write(promptBox(), written); };
  const drawRows = (text) => {
    const place = find("[data-targets]");
    if (!place) return;
    story = read(text || "");
    place.replaceChildren();
    story.forEach((scene, number) => {
      if (story.length > 1) {
        const head = document.createElement("p");
        head.innerHTML = word("scene", number + 1) + (scene.step ? " · " + word("step", scene.step) : "");
        place.append(head);
      }
      scene.targets.forEach((one) => {
        const row = document.createElement("div");
        row.className = "target" + (one.weight < 0 ? " away" : "") + (one.weight === 0 ? " off" : "");
        row.innerHTML = `<button type="button" class="eye"><i></i></button><span class="text"></span>
          <input type="range" min="${Math.min(-2, one.weight)}" max="${Math.max(2, one.weight)}" step="0.05">
          <output></output><button type="button" class="drop">×</button>`;
        const [eye, name, slider, told, drop] = row.children;
        name.textContent = name.title = one.text;
        slider.value = one.weight;
        slider.setAttribute("aria-label", `${plain("weight")}: ${one.text}`);
        eye.setAttribute("aria-label", `${plain("off")}: ${one.text}`);
        eye.title = plain("off");
        drop.setAttribute("aria-label", `${plain("remove")}: ${one.text}`);
        const show = () => {
          told.textContent = one.weight.toFixed(2).replace(/0$/, "").replace("-", "−");
          eye.setAttribute("aria-pressed", String(one.weight !== 0));
          row.classList.toggle("away", one.weight < 0);
          row.classList.toggle("off", one.weight === 0);
          slider.style.setProperty("--at", `${100 * (one.weight - slider.min) / (slider.max - slider.min)}%`);
        };
        slider.addEventListener("input", () => { one.weight = Number(slider.value); show(); rewrite(); });
        eye.addEventListener("click", () => {
          if (one.weight) { muted.set(one.text, one.weight); one.weight = 0; } else one.weight = muted.get(one.text) || 1;
          slider.value = one.weight;
          show();
          rewrite();
        });
        drop.addEventListener("click", () => { scene.targets.splice(scene.targets.indexOf(one), 1); story = story.filter((each) => each.targets.length); rewrite(); drawRows(written); });
        show();
        place.append(row);
      });
    });
    const add = Object.assign(document.createElement("button"), { type: "button", className: "add", innerHTML: "+ " + word("add") });
    add.addEventListener("click", () => {
      const box = promptBox();
      write(box, box.value.trim() ? box.value.trimEnd() + " | " : "");
      box.focus();
      box.setSelectionRange(box.value.length, box.value.length);
    });
    place.append(add);
  };

  const watching = (element, answer) => { new MutationObserver(answer).observe(element, { childList: true, subtree: true }); answer(); };
  const layersOnly = (records) => records.every((one) => [...one.addedNodes, ...one.removedNodes].every((node) => node === mask || node === glimpse));
  let pressed = false;
  Object.assign(window.atelier, {
    canvas(element) {
      watching(element, (records) => { if (!records || !layersOnly(records)) { showBack(); showBrush(); } });
    },
    timeline(element) { watching(element, () => { if (back || find("#timeline .scrubbed:not([hidden])")) quietly(element); }); },
    // The button that was pressed is another one now; the keyboard stays where it was.
    transport(element) {
      find("#opt-announce")?.setAttribute("aria-live", "polite");
      find("#opt-note")?.setAttribute("role", "status");
      requestAnimationFrame(() => window.atelier.targets(promptBox()?.value));
      setTimeout(() => { const box = maskBox(); if (box) window.atelier.mask(box.value); });
      watching(element, () => {
        if (pressed && document.activeElement === document.body) element.querySelector("button")?.focus();
        pressed = false;
      });
    },
    targets(text) {
      if (written !== null && promptBox()?.value === written && find("[data-targets] .target")) return;
      written = null;
      drawRows(text);
    },
    mask(uri) {
      if (uri === brush.own) return;
      brush.own = uri || "";
      if (!uri) { pen.clearRect(0, 0, mask.width, mask.height); showBrush(); return; }
      const picture = new Image();
      picture.onload = () => {
        Object.assign(mask, { width: picture.naturalWidth, height: picture.naturalHeight });
        pen.globalCompositeOperation = "source-over";
        pen.drawImage(picture, 0, 0);
        const pixels = pen.getImageData(0, 0, mask.width, mask.height);
        for (let at = 0; at < pixels.data.length; at += 4) pixels.data.set([240, 98, 77, pixels.data[at]], at);
        pen.putImageData(pixels, 0, 0);
        showBrush();
      };
      picture.src = uri;
    },
  });
  let resting = false; // our own words in the timeline are no news
  const quietly = () => {
    if (resting) return;
    resting = true;
    showBack();
    queueMicrotask(() => { resting = false; });
  };

  document.addEventListener("click", (event) => {
    const at = event.target.closest?.("[data-scrub], [data-now], [data-back], [data-view], [data-paint], [data-erase], [data-invert], [data-clear], #transport button");
    if (!at) return;
    if (at.closest("#transport")) pressed = true;
    if ("scrub" in at.dataset) lookBack(Number(at.dataset.scrub));
    if ("now" in at.dataset) lookBack(NaN);
    if ("back" in at.dataset) walk(-1);
    if ("view" in at.dataset) {
      for (const one of document.querySelectorAll("#canvas [data-figure]")) one.hidden = one.dataset.figure !== at.dataset.view;
      for (const one of document.querySelectorAll("#canvas [data-view]")) one.setAttribute("aria-pressed", String(one === at));
      lookBack(NaN);
      showBrush();
    }
    if ("paint" in at.dataset) { brush.on = !brush.on; if (brush.on) lookBack(NaN); showBrush(); }
    if ("erase" in at.dataset) { brush.erase = !brush.erase; showBrush(); }
    if ("invert" in at.dataset) flood("source-out");
    if ("clear" in at.dataset) flood("destination-out");
  });
  document.addEventListener("input", (event) => { if (event.target.matches?.("#timeline input")) lookBack(nearest(Number(event.target.value))); });
  document.addEventListener("keydown", (event) => {
    if (!event.target.matches?.("#timeline input")) return;
    const by = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, Home: -1e6, End: 1e6 }[event.key];
    if (by) { event.preventDefault(); walk(by); }
  });
})();
