// Prompts: the parts as rows with weights, and what a prompt could be instead.
(() => {
  const { find, word, plain, write, watching } = window.atelier;

  // The prompt as rows. The text is the truth: a slider rewrites it, and whatever else changes it redraws the rows, as soon as
  // the server has parsed it. Until then the rows stand for an older text and change nothing. `boxOf` gives the prompt's box,
  // `placeOf` where the rows stand; `plainly` tells that one text alone needs no row.
  const say = (scenes) => scenes.map(({ step, targets }) => targets.map(({ text, said, weight, stop }) =>
    (said ?? text) + (weight === 1 && stop === null ? "" : `:${weight}`) + (stop === null ? "" : `:${stop}`)).join(" | ") + (step && ` @${step}`)).join(" ^ ");
  const makeRows = (boxOf, placeOf, plainly) => {
    let shown = null; // the text that the rows stand for
    let story = [];
    const muted = new Map(); // text -> its weight before it was left out
    const rewrite = (change) => {
      if (boxOf()?.value !== shown) return;
      change();
      shown = say(story);
      write(boxOf(), shown);
    };
    const draw = () => {
      const place = placeOf();
      if (!place) return;
      place.replaceChildren();
      const every = story.flatMap((scene) => scene.targets);
      place.hidden = plainly && every.length < 2 && every.every((one) => one.weight === 1 && one.stop === null);
      if (place.hidden) return;
      story.forEach((scene, number) => {
        if (story.length > 1) {
          const head = document.createElement("p");
          head.innerHTML = word("scene", number + 1) + (scene.step ? " · " + word("step", scene.step) : "");
          place.append(head);
        }
        for (const one of scene.targets) place.append(rowOf(one, scene));
      });
      const add = Object.assign(document.createElement("button"), { type: "button", className: "add", innerHTML: "+ " + word("add") });
      add.addEventListener("click", () => {
        const box = boxOf();
        write(box, box.value.trim() ? box.value.trimEnd() + " | " : "");
        box.focus();
        box.setSelectionRange(box.value.length, box.value.length);
      });
      place.append(add);
    };
    const rowOf = (one, scene) => {
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
      slider.addEventListener("input", () => rewrite(() => { one.weight = Number(slider.value); show(); }));
      eye.addEventListener("click", () => rewrite(() => {
        if (one.weight) { muted.set(one.text, one.weight); one.weight = 0; } else one.weight = muted.get(one.text) || 1;
        slider.value = one.weight;
        show();
      }));
      drop.addEventListener("click", () => rewrite(() => {
        scene.targets.splice(scene.targets.indexOf(one), 1);
        story = story.filter((each) => each.targets.length);
        draw();
      }));
      show();
      return row;
    };
    return {
      draw,
      forget() { shown = null; draw(); },
      // What the server parsed; an answer about an older text than the box's is left out.
      take({ text, scenes }) {
        const present = text.replace(/\r\n?/g, "\n"); // as a box tells its lines
        if (boxOf()?.value !== present || shown === present) return;
        shown = present;
        story = scenes;
        draw();
      },
    };
  };
  const promptRows = makeRows(() => find("#opt-prompt textarea"), () => find("#opt-rows [data-targets]"), false);

  // Generate's rows stand below its prompt, in a place that the server does not write: a slider is not taken away in the middle.
  const partsPlace = Object.assign(document.createElement("div"), { className: "targets", id: "parts", hidden: true });
  const partsRows = makeRows(() => find("#prompt textarea"), () => {
    const press = find("#press");
    if (press && partsPlace.previousElementSibling !== press) press.after(partsPlace);
    return press && partsPlace;
  }, true);

  // What a prompt could be instead: a click puts it in the place of the prompt's end, or of a word. Down leads from the prompt
  // to the offers, arrows from one to the next, Escape back.
  const boxBeside = (at) => find(at.closest("#opt-ask") ? "#opt-prompt textarea" : "#prompt textarea");
  document.addEventListener("click", (event) => {
    const at = event.target.closest?.("[data-offer]"), box = at && boxBeside(at);
    if (!box) return;
    const { offer, tail, word: strange } = at.dataset, text = box.value;
    let now = text;
    if (tail !== undefined && text.toLowerCase().endsWith(tail.toLowerCase())) now = text.slice(0, text.length - tail.length) + offer;
    else if (strange) {
      const from = text.toLowerCase().indexOf(strange.toLowerCase());
      if (from >= 0) now = text.slice(0, from) + offer + text.slice(from + strange.length).replace(/^[\ufe0e\ufe0f\u200d]+/, "");
    }
    write(box, now);
    box.focus();
    box.setSelectionRange(now.length, now.length);
  });
  document.addEventListener("keydown", (event) => {
    const at = event.target;
    if (event.key === "ArrowDown" && at.matches?.("#prompt textarea, #opt-prompt textarea") && at.selectionStart === at.value.length && !event.isComposing && !window.atelier.browsing?.()) {
      const first = at.closest("#ask, #opt-ask")?.querySelector("[data-offer]");
      if (first) { event.preventDefault(); first.focus(); }
      return;
    }
    if (!at.matches?.("[data-offer]")) return;
    if (event.key === "Escape") { boxBeside(at)?.focus(); return; }
    const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!by) return;
    event.preventDefault();
    const all = Array.from(at.closest(".offers").querySelectorAll("[data-offer]"));
    const next = all[all.indexOf(at) + by];
    if (next) next.focus(); else if (by < 0) boxBeside(at)?.focus();
  });

  Object.assign(window.atelier, {
    rows(ask) {
      promptRows.forget();
      ask();
    },
    targets(parsed) {
      const told = JSON.parse(parsed), notes = find("#opt-rows [data-notes]");
      promptRows.take(told);
      if (notes) notes.innerHTML = told.notes || "";
    },
    reading(element) {
      watching(element, () => {
        const parsed = element.querySelector("[data-parsed]")?.dataset.parsed;
        if (parsed) partsRows.take(JSON.parse(parsed));
      });
    },
  });
})();
