// The tab Train: the form and what was found, then how the training goes, which is asked for as long as the tab is seen.
(() => {
  const SOON = 1500, LATER = 6000, AWAY = 20000; // milliseconds between two looks: while it runs, else, and from another tab
  const SMOOTH = 12; // neighbours on each side whose mean is the dark curve
  const WIDE = 320, HIGH = 88; // units of a curve
  const svg = (name, facts) => { const made = document.createElementNS("http://www.w3.org/2000/svg", name); for (const [key, value] of Object.entries(facts)) made.setAttribute(key, value); return made; };
  const short = (value, digits = 4) => Number(value.toPrecision(digits)).toLocaleString("en", { maximumSignificantDigits: digits, useGrouping: false });
  const whole = (value) => Math.round(value).toLocaleString("en");

  // ---- a curve: the losses as they were, their running mean over them, and what stands under the pointer

  const smoothed = (points) => points.map((_, at) => {
    const wide = Math.min(SMOOTH, at), near = points.slice(at - wide, at + wide + 1);
    return [points[at][0], near.reduce((sum, one) => sum + one[1], 0) / near.length];
  });
  const range = (points) => { // the first, large losses would press the rest flat
    const values = points.map((one) => one[1]).sort((a, b) => a - b), at = (share) => values[Math.min(values.length - 1, Math.floor(share * values.length))];
    const [low, high] = [at(0.01), at(points.length > 40 ? 0.97 : 1)];
    return high > low ? [low, high] : [low - 0.5, high + 0.5];
  };
  const draw = (plot, points) => {
    const mean = smoothed(points), [low, high] = range(points), first = points[0][0], last = Math.max(points.at(-1)[0], first + 1);
    const x = (step) => ((step - first) / (last - first)) * WIDE, y = (value) => HIGH - ((Math.min(Math.max(value, low), high) - low) / (high - low)) * HIGH;
    const path = (list) => list.map(([step, value], at) => `${at ? "L" : "M"}${x(step).toFixed(1)} ${y(value).toFixed(1)}`).join("");
    plot.querySelector(".raw").setAttribute("d", path(points));
    plot.querySelector(".mean").setAttribute("d", path(mean));
    plot.querySelector(".high").textContent = short(high, 3);
    plot.querySelector(".low").textContent = short(low, 3);
    plot.querySelector(".until").textContent = whole(points.at(-1)[0]);
    plot.points = mean;
    if (!plot.matches(":hover")) plot.querySelector("output").textContent = short(mean.at(-1)[1]);
  };
  const plotted = (curve) => {
    const plot = document.createElement("figure"), figure = svg("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, preserveAspectRatio: "none", "aria-hidden": "true" });
    plot.className = "plot";
    plot.dataset.name = curve.name;
    plot.innerHTML = `<figcaption><b>${curve.title}</b><output></output></figcaption><div class="graph"><i class="high"></i><i class="low"></i><i class="until"></i></div>`;
    figure.append(svg("path", { class: "raw" }), svg("path", { class: "mean" }), svg("line", { class: "at", y1: 0, y2: HIGH }));
    plot.querySelector(".graph").prepend(figure);
    const value = plot.querySelector("output"), at = plot.querySelector(".at");
    figure.addEventListener("pointermove", (event) => {
      const box = figure.getBoundingClientRect(), points = plot.points;
      const step = points[0][0] + ((event.clientX - box.left) / box.width) * (points.at(-1)[0] - points[0][0]);
      const [nearest, mean] = points.reduce((best, one) => (Math.abs(one[0] - step) < Math.abs(best[0] - step) ? one : best));
      const place = ((nearest - points[0][0]) / Math.max(points.at(-1)[0] - points[0][0], 1)) * WIDE;
      at.setAttribute("x1", place);
      at.setAttribute("x2", place);
      value.textContent = `${whole(nearest)} · ${short(mean)}`;
    });
    figure.addEventListener("pointerleave", () => { value.textContent = short(plot.points.at(-1)[1]); });
    return plot;
  };

  const hang = (element) => {
    const root = element.querySelector(".train"), find = (selector) => root.querySelector(selector);
    const form = () => find("form.ask-for"), toast = find(".toast"), sample = find(".sample"), film = find(".film");
    let id = "", shown = 0, followed = true, formed = false, asking = 0, timer = 0;

    const ask = async (question, facts = {}) => {
      let answer = null;
      try {
        const reply = await fetch(`train/${question}`, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(facts) });
        answer = await reply.json();
      } catch { /* said below */ }
      return answer || { error: find("template.trouble").innerHTML };
    };
    let quiet = 0;
    const say = (words) => {
      toast.innerHTML = `<span>${words}</span>`;
      toast.hidden = false;
      clearTimeout(quiet);
      quiet = setTimeout(() => { toast.hidden = true; }, 9000);
    };
    // Part by part, and only what changed: nothing that is pointed at or has the focus is taken away.
    const put = (place, inside) => {
      if (place.told === inside) return;
      const had = place.contains(document.activeElement);
      place.told = inside;
      place.innerHTML = inside;
      if (had) place.querySelector("button")?.focus();
    };

    // ---- how it goes

    const show = (answer) => {
      if (answer.error) { say(answer.error); return; }
      const none = answer.state === "none";
      root.dataset.state = answer.state;
      document.documentElement.dataset.trains = answer.state === "running" ? "yes" : "no";
      find(".train-run").hidden = none;
      find(".train-form").hidden = !none;
      if (none && !element.offsetParent) return;
      if (none) { id = ""; if (!formed) ask("form").then((made) => { if (made.error) say(made.error); else { formed = true; find(".train-form").innerHTML = made.html; } }); return; }
      if (answer.id !== id) { id = answer.id; shown = 0; followed = true; film.replaceChildren(); find(".plots").replaceChildren(); }
      put(find(".head"), answer.head);
      put(find(".going"), answer.going);
      put(find(".figures"), answer.figures);
      for (const curve of answer.curves) {
        let plot = find(`.plot[data-name="${CSS.escape(curve.name)}"]`);
        if (!plot) { plot = plotted(curve); find(".plots").append(plot); }
        if (curve.points.length) draw(plot, curve.points);
      }
      sheets(answer.sheets);
    };
    const address = (step) => `train/sheet/${id}/${step}`;
    const sheets = (steps) => {
      const kept = new Set(steps.map(String));
      for (const one of Array.from(film.children)) if (!kept.has(one.dataset.step)) one.remove();
      for (const step of steps) {
        if (film.querySelector(`[data-step="${step}"]`)) continue;
        const cell = Object.assign(document.createElement("button"), { type: "button" });
        cell.dataset.step = step;
        cell.append(Object.assign(document.createElement("img"), { src: address(step), alt: "", loading: "lazy" }), document.createElement("span"));
        cell.lastChild.innerHTML = find("template.step").innerHTML.replaceAll("#", whole(step));
        const after = Array.from(film.children).find((one) => Number(one.dataset.step) > step);
        film.insertBefore(cell, after || null);
      }
      film.hidden = steps.length < 2;
      sample.hidden = !steps.length;
      if (!steps.length) return;
      if (followed || !kept.has(String(shown))) see(steps.at(-1), false);
    };
    const see = (step, chosen) => {
      const cells = Array.from(film.children), newest = Number(cells.at(-1)?.dataset.step ?? step);
      if (chosen) followed = step === newest;
      for (const cell of cells) cell.setAttribute("aria-current", String(Number(cell.dataset.step) === step));
      if (step === shown) return;
      shown = step;
      sample.querySelector("img").src = address(step);
      sample.querySelector("figcaption").innerHTML = find("template.sheet").innerHTML.replaceAll("#", whole(step));
      if (!chosen) film.scrollLeft = film.scrollWidth;
    };
    const look = async () => {
      clearTimeout(timer);
      const turn = ++asking, answer = await ask("look");
      if (turn !== asking) return;
      if (!answer.error) show(answer);
      again();
    };
    const again = () => {
      clearTimeout(timer);
      const running = root.dataset.state === "running", seen = element.offsetParent;
      if (root.isConnected && !document.hidden && (seen || running)) timer = setTimeout(look, seen ? (running ? SOON : LATER) : AWAY);
    };

    // ---- the form

    const value = (name) => form().elements[name]?.value ?? "";
    const named = () => { const field = form().elements.folder; if (!field.value.trim()) field.focus(); return field.value.trim(); };
    const pictures = () => ({ folder: value("folder").trim(), licence: value("licence") });
    const wait = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));
    // A look at a large folder takes a while: how far it is is asked for until it is over, or until another one is begun.
    let looking = 0;
    const untilFound = async (question, facts) => {
      const turn = ++looking, place = find(".found");
      let answer = await ask(question, facts);
      while (!answer.error && "total" in answer) {
        if (turn !== looking) return null;
        const bar = answer.total ? `<progress max="${answer.total}" value="${answer.done}" aria-label="${find("template.checking").content.textContent}"></progress><p class="small">${whole(answer.done)} / ${whole(answer.total)}</p>` : "";
        place.innerHTML = `<div class="stage looking"><p>${find("template.checking").innerHTML}</p>${bar}</div>`;
        await wait(400);
        answer = await ask(question, { ...facts, again: false });
      }
      return turn === looking ? answer : null;
    };
    const check = async () => {
      if (!named()) return;
      const answer = await untilFound("check", { ...pictures(), again: true });
      if (answer) find(".found").innerHTML = answer.error ? `<div class="stage refused"><p class="cause">${answer.error}</p></div>` : answer.html;
    };
    const start = async () => {
      if (!named()) return;
      const facts = Object.fromEntries(["network", "pack", "minutes", "size", "seed"].map((name) => [name, value(name)]));
      const button = form().querySelector("[type=submit]");
      button.disabled = true;
      const answer = await untilFound("start", { ...facts, ...pictures() });
      button.disabled = false;
      if (!answer) return;
      if (answer.error) { say(answer.error); if (find(".looking")) check(); return; }
      show(answer);
      scrollTo({ top: 0 });
      again();
    };

    const deed = async (what) => { asking += 1; show(await ask("do", { do: what })); again(); };
    const deeds = {
      check,
      minutes: (one) => { form().elements.minutes.value = one.dataset.value; },
      pause: () => deed("pause"),
      resume: () => deed("resume"),
      stop: () => deed("stop"),
      new: () => deed("forget"),
      sure: () => find("dialog.sure").showModal(),
      close: () => find("dialog.sure").close(),
      forget: () => { find("dialog.sure").close(); deed("forget"); },
      models: () => document.querySelector("#tab-models-button")?.click(),
    };
    root.addEventListener("click", (event) => {
      const one = event.target.closest("[data-do], .film [data-step]");
      if (!one || !root.contains(one)) return;
      if (one.dataset.step) see(Number(one.dataset.step), true); else deeds[one.dataset.do]?.(one);
    });
    root.addEventListener("submit", (event) => { event.preventDefault(); start(); });
    root.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && event.target.matches?.("[name=folder]")) { event.preventDefault(); check(); }
      const cell = event.target.closest?.(".film [data-step]");
      const to = cell && { ArrowLeft: cell.previousElementSibling, ArrowRight: cell.nextElementSibling, Home: film.firstElementChild, End: film.lastElementChild }[event.key];
      if (to) { event.preventDefault(); to.focus(); see(Number(to.dataset.step), true); }
    });
    document.addEventListener("visibilitychange", () => { if (document.hidden) again(); else look(); });
    look(); // the header tells of a training from every tab
    new IntersectionObserver((entries) => { if (entries.at(-1).isIntersecting) look(); else again(); }).observe(root);
  };
  Object.assign(window.atelier, { train: (element) => hang(element) });
})();
