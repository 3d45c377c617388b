// Sheets. The form chooses what changes along the columns and rows; the texts of both axes, in hidden inputs, are the truth,
// and whoever fills them in tells it by the event "filled". The cells of a finished sheet are walked by the arrow keys.
(() => {
  const root = document.documentElement, MOST = 8, BETWEEN = 5; // values of an axis; pictures from one word to another
  const language = () => (root.dataset.lang === "zh" ? 1 : 0);
  const PROMPTS = "#prompt textarea, #opt-prompt textarea, [name=prompt], .ask textarea";
  const known = new Map(); // pipeline -> { at, answer } of what can change, which the server tells

  // ---- the text of an axis: NAME=VALUE,VALUE or NAME=FIRST..LAST

  const valuesIn = (text) => {
    const ends = /^\s*(\d{1,20})\s*\.\.\s*(\d{1,20})\s*$/.exec(text);
    if (ends) {
      const first = BigInt(ends[1]), last = BigInt(ends[2]), found = [];
      for (let at = first; found.length <= MOST && (first <= last ? at <= last : at >= last); at += first <= last ? 1n : -1n) found.push(String(at));
      return found;
    }
    const found = Array.from(text.matchAll(/\s*(?:"((?:[^"]|"")*)"\s*|([^,，]*))(?:[,，]|$)/g), ([, quoted, bare]) => (quoted ?? bare ?? "").replaceAll('""', '"').trim());
    return [...new Set(found.filter(Boolean))];
  };
  const parse = (text) => {
    const at = text.search(/[=＝]/);
    return at < 0 ? { name: "", values: [] } : { name: text.slice(0, at).trim(), values: valuesIn(text.slice(at + 1)) };
  };
  const quoted = (value) => (/[",，]|\.\./.test(value) ? `"${value.replaceAll('"', '""')}"` : value);
  const least = (axis) => (axis.name === "between" ? 2 : 1);
  const written = (axis) => (axis.name && axis.values.length >= least(axis) ? `${axis.name}=${axis.values.map(quoted).join(",")}` : "");
  const length = (axis) => (!written(axis) ? 1 : axis.name === "between" ? BETWEEN : axis.values.length);

  // ---- the form

  const make = (fold) => {
    const rows = Object.fromEntries(Array.from(fold.querySelectorAll("[data-along]"), (row) => [row.dataset.along, row]));
    const inputs = Object.fromEntries(Object.entries(rows).map(([key, row]) => [key, row.querySelector("[name]")]));
    const axes = { x: { name: "", values: [] }, y: { name: "", values: [] } };
    let choices = [], seconds = null;
    const say = (key, ...facts) => {
      const said = fold.querySelector(`[data-say=${key}]`).children[language()].textContent;
      return said.replace(/#(\d)/g, (_, number) => facts[number - 1]);
    };
    const label = (one) => one.label[language()] || one.name;
    const choiceOf = (axis) => choices.find((one) => one.name === axis.name);
    const shown = (axis, value) => choiceOf(axis)?.choices.find(([name]) => name === value)?.[1 + language()] ?? value;
    const pipeline = () => {
      const offered = fold.dataset.axes.split(" "), tab = fold.closest("[role=tabpanel]") || document;
      const chosen = tab.querySelector(".engines input:checked")?.value;
      return offered.includes(chosen) ? chosen : offered[0];
    };
    const prompt = () => (fold.closest("[role=tabpanel]") || document).querySelector(PROMPTS)?.value || "";
    const load = async () => {
      const name = pipeline(), before = known.get(name);
      if (!before || performance.now() - before.at > 5000) {
        const answer = await fetch(`axes/${name}`).then((one) => (one.ok ? one.json() : null)).catch(() => null);
        if (answer) known.set(name, { at: performance.now(), answer });
      }
      if (name !== pipeline()) return;
      ({ choices, seconds } = known.get(name)?.answer || { choices: [], seconds: null });
      draw();
    };
    const tell = () => {
      for (const [key, input] of Object.entries(inputs)) {
        if (input.value === written(axes[key])) continue;
        input.value = written(axes[key]);
        input.dispatchEvent(new Event("input", { bubbles: true }));
      }
      draw();
    };

    // One axis: what changes, its values as chips, and where another one is typed.
    const chip = (axis, value) => {
      const one = document.createElement("span");
      one.className = "value";
      one.append(shown(axis, value), Object.assign(document.createElement("button"), { type: "button", textContent: "×" }));
      one.lastChild.dataset.drop = value;
      one.lastChild.setAttribute("aria-label", `${say("remove")}: ${shown(axis, value)}`);
      return one;
    };
    const button = (text, facts) => {
      const one = Object.assign(document.createElement("button"), { type: "button", textContent: text });
      Object.assign(one.dataset, facts);
      return one;
    };
    const offers = (axis) => { // words of the prompt, for an axis that begins with some of them
      if (!["words", "between"].includes(axis.name) || axis.values.length) return [];
      const words = prompt().split(/[\s,，|｜:：]+/).filter((word) => word.length > 2 || /[^\x00-\x7f]/.test(word));
      return [...new Set(words)].slice(0, 6).map((word) => button(word, { take: word }));
    };
    const drawValues = (row, axis) => {
      const place = row.querySelector(".values"), one = choiceOf(axis), typed = place.querySelector("input")?.value || "";
      place.replaceChildren();
      place.hidden = !axis.name;
      if (!axis.name) return;
      if (one?.kind === "choice") {
        const names = [...one.choices.map(([name]) => name), ...axis.values.filter((value) => !one.choices.some(([name]) => name === value))];
        for (const name of names) {
          const toggle = button(shown(axis, name), { toggle: name });
          toggle.setAttribute("aria-pressed", String(axis.values.includes(name)));
          toggle.disabled = axis.values.length >= MOST && !axis.values.includes(name);
          place.append(toggle);
        }
        return;
      }
      place.append(...axis.values.map((value) => chip(axis, value)), ...offers(axis));
      if (axis.values.length >= (axis.name === "between" ? 2 : MOST)) return;
      const entry = Object.assign(document.createElement("input"), { type: "text", value: typed, placeholder: say("add"), autocomplete: "off", spellcheck: false });
      if (one?.kind === "whole" || one?.kind === "number") entry.inputMode = "text";
      entry.setAttribute("aria-label", `${say("add")}: ${one ? label(one) : axis.name}`);
      place.append(entry);
    };
    const hint = (axis) => {
      const one = choiceOf(axis);
      if (!axis.name) return "";
      if (!one) return choices.length ? say("unknown", axis.name) : "";
      if (axis.values.length >= MOST) return say("most");
      if (one.kind === "words" || one.kind === "between") return say(`hint_${one.kind}`);
      if (one.kind === "choice") return "";
      const plainly = (number) => (number > 1e15 ? "2⁶⁴" : String(number));
      return one.lo !== null && one.hi !== null ? say("hint_range", plainly(one.lo), plainly(one.hi)) : say("hint_text");
    };
    const drawChoice = (row, axis) => {
      const select = row.querySelector("select");
      const options = [new Option(say("nothing"), "")];
      for (const group of ["prompt", "often", "more", "models"]) {
        const inside = choices.filter((one) => one.group === group).map((one) => new Option(label(one), one.name));
        if (!inside.length) continue;
        const place = Object.assign(document.createElement("optgroup"), { label: say(`group_${group}`) });
        place.append(...inside);
        options.push(place);
      }
      if (axis.name && !choiceOf(axis)) options.push(new Option(axis.name, axis.name));
      select.replaceChildren(...options);
      select.value = axis.name;
    };
    // The sheet in small: as many places as there will be pictures, with what stands beside them.
    const drawPlan = () => {
      const plan = fold.querySelector(".plan"), across = length(axes.x), down = length(axes.y), count = across * down;
      const labels = (axis) => (!written(axis) ? [""] : axis.name === "between" ? [axis.values[0], "25%", "50%", "75%", axis.values[1]] : axis.values.map((value) => shown(axis, value)));
      plan.hidden = count < 2;
      plan.style.setProperty("--columns", across);
      const place = (tag, text = "") => Object.assign(document.createElement(tag), { textContent: text, title: text });
      plan.replaceChildren(place("s"), ...labels(axes.x).map((text) => place("b", text)));
      for (const text of labels(axes.y)) plan.append(place("b", text), ...Array.from({ length: across }, () => place("i")));
      const whole = Math.max(1, Math.round((seconds || 0) * count));
      const time = seconds === null ? say("time_unknown") : whole < 90 ? say("seconds", whole) : say("minutes", Math.round(whole / 60));
      const set = written(axes.x) || written(axes.y);
      const sum = fold.querySelector(".sum p"), said = Object.assign(document.createElement("b"), { textContent: say("pictures", count) });
      if (count > 1) sum.replaceChildren(said, Object.assign(document.createElement("span"), { textContent: time }));
      else sum.replaceChildren(say(set ? "more_values" : "choose"));
      fold.querySelector("summary output").textContent = set ? `${across} × ${down}` : "";
      for (const one of fold.querySelectorAll(".sum button")) one.hidden = !(axes.x.name || axes.y.name);
    };
    const draw = () => {
      for (const [key, row] of Object.entries(rows)) {
        drawChoice(row, axes[key]);
        drawValues(row, axes[key]);
        row.querySelector(".hint").textContent = hint(axes[key]);
        row.classList.toggle("set", Boolean(written(axes[key])));
      }
      drawPlan();
    };

    // ---- what is done to it

    const wrong = (one, value) => {
      if (one?.kind !== "whole" && one?.kind !== "number") return "";
      if (!(one.kind === "whole" ? /^-?\d{1,20}$/ : /^-?(\d{1,20}(\.\d*)?|\.\d+)$/).test(value)) return say("bad_number", value);
      return (one.lo !== null && Number(value) < one.lo) || (one.hi !== null && Number(value) > one.hi) ? say("bad_range", value, one.lo, one.hi) : "";
    };
    const add = (key, text) => {
      const axis = axes[key], one = choiceOf(axis), row = rows[key], found = valuesIn(text);
      const problem = found.map((value) => wrong(one, value)).find(Boolean);
      if (problem) { row.querySelector(".hint").textContent = problem; row.classList.add("bad"); return; }
      row.classList.remove("bad");
      const entry = row.querySelector(".values input");
      if (entry) entry.value = "";
      axis.values = [...new Set([...axis.values, ...found])].slice(0, axis.name === "between" ? 2 : MOST);
      tell();
      (row.querySelector(".values input") || row.querySelector(".values button"))?.focus();
    };
    const keyOf = (at) => at.closest("[data-along]")?.dataset.along;
    fold.addEventListener("change", (event) => {
      const key = keyOf(event.target);
      if (!event.target.matches("select")) return;
      event.stopPropagation();
      axes[key] = { name: event.target.value, values: [] };
      axes[key].values = [...(choiceOf(axes[key])?.first || [])];
      const other = axes[key === "x" ? "y" : "x"];
      if (other.name && other.name === axes[key].name) Object.assign(other, { name: "", values: [] });
      rows[key].classList.remove("bad");
      tell();
    });
    fold.addEventListener("input", (event) => { if (!event.target.name) event.stopPropagation(); });
    fold.addEventListener("focusout", (event) => { if (event.target.matches(".values input") && event.target.value.trim()) add(keyOf(event.target), event.target.value); });
    fold.addEventListener("keydown", (event) => {
      const at = event.target, key = keyOf(at);
      if (!at.matches(".values input") || event.isComposing || event.ctrlKey || event.metaKey) return;
      if ((event.key === "Enter" || event.key === "," || event.key === "，") && at.value.trim() && !(event.key !== "Enter" && (at.value.split('"').length - 1) % 2)) { event.preventDefault(); add(key, at.value); }
      if (event.key === "Backspace" && !at.value && axes[key].values.length) { event.preventDefault(); axes[key].values.pop(); tell(); rows[key].querySelector(".values input")?.focus(); }
    });
    fold.addEventListener("click", (event) => {
      const at = event.target.closest("[data-drop], [data-toggle], [data-take], [data-axes-swap], [data-axes-clear]"), key = at && keyOf(at), axis = axes[key];
      if (!at) return;
      if ("take" in at.dataset) { add(key, quoted(at.dataset.take)); return; }
      const place = key && Array.from(rows[key].querySelectorAll(".values button")).indexOf(at);
      if ("drop" in at.dataset) axis.values = axis.values.filter((value) => value !== at.dataset.drop);
      if ("toggle" in at.dataset) {
        const order = choiceOf(axis).choices.map(([name]) => name), value = at.dataset.toggle;
        axis.values = axis.values.includes(value) ? axis.values.filter((one) => one !== value) : [...axis.values, value];
        axis.values.sort((a, b) => order.indexOf(a) - order.indexOf(b));
      }
      if ("axesSwap" in at.dataset) [axes.x, axes.y] = [axes.y, axes.x];
      if ("axesClear" in at.dataset) for (const name of ["x", "y"]) axes[name] = { name: "", values: [] };
      tell();
      const buttons = key ? rows[key].querySelectorAll(".values button") : [];
      if (key) (buttons[place] || rows[key].querySelector(".values input") || buttons[buttons.length - 1])?.focus();
      else if (at.hidden) rows.x.querySelector("select").focus();
    });
    fold.addEventListener("toggle", () => { if (fold.open) load(); });
    document.addEventListener("input", (event) => { // the words that are offered are the prompt's
      const waits = [axes.x, axes.y].some((axis) => ["words", "between"].includes(axis.name) && !axis.values.length);
      if (fold.open && waits && event.target.matches?.(PROMPTS)) draw();
    });
    document.addEventListener("change", (event) => { if (event.target.matches?.(".engines input") && fold.open) load(); });
    new MutationObserver(draw).observe(root, { attributes: true, attributeFilter: ["data-lang"] });
    const take = () => {
      let news = false;
      for (const [key, input] of Object.entries(inputs))
        if (input.value !== written(axes[key])) { axes[key] = parse(input.value); news = true; }
      if (!news) return;
      if (written(axes.x) || written(axes.y)) fold.open = true;
      draw();
      if (fold.open) load();
    };
    draw();
    return { take };
  };
  const forms = new WeakMap();
  Object.assign(window.atelier, {
    // The form of a sheet inside an element; called again, it takes what was filled in.
    axes(element) {
      const fold = element.querySelector("details.axes");
      if (!fold) return;
      if (!forms.has(fold)) {
        forms.set(fold, make(fold));
        element.addEventListener("filled", () => forms.get(fold).take());
      }
      forms.get(fold).take();
    },
  });

  // ---- the cells of a finished sheet

  document.addEventListener("keydown", (event) => {
    const at = event.target.closest?.(".cells td button");
    if (!at || event.ctrlKey || event.metaKey || event.altKey) return;
    const row = at.closest("tr"), column = Array.from(row.children).indexOf(at.parentNode), rows = Array.from(row.parentNode.children);
    const by = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!by) return;
    event.preventDefault();
    const next = rows[rows.indexOf(row) + by[0]]?.children[column + by[1]]?.querySelector("button");
    if (next) { next.focus(); next.click(); }
  });
  // Which cell is open is the same everywhere, whatever the tab shows it by.
  document.addEventListener("click", (event) => {
    const at = event.target.closest?.(".cells button");
    if (at) for (const one of at.closest(".cells").querySelectorAll("button")) one.setAttribute("aria-pressed", String(one === at));
  });
})();
