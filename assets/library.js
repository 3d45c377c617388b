// The Library's wall: what it is asked for, the pictures that come as one scrolls, choosing them and working on them.
(() => {
  const { kept } = window.atelier;
  const SIDE = 512; // pixels of a picture that is searched by
  const FAR = 1200; // pixels below the window at which the next page is asked for
  const DAY = 86400000;

  const hang = (element, trigger) => {
    const root = element.querySelector(".library"), find = (selector) => root.querySelector(selector);
    const all = (selector) => Array.from(root.querySelectorAll(selector));
    const pictures = find(".pictures"), tray = find(".tray"), toast = find(".toast"), form = find(".seek"), text = form.elements.text;
    const wanted = { tool: "", date: "", seed: "", model: "", tag: "", words: "", starred: false, stacked: true, binned: false };
    const likes = []; // { kind: "like" | "unlike" | "given", value, src }
    const chosen = new Set();
    let folder = "", sort = "", shown = 0, more = false, asked = 0, busy = false, own = true, anchor = null, started = false, running = false;

    // ---- asking the server

    const ask = async (question, facts = {}) => {
      let answer;
      try {
        const reply = await fetch(`library/${question}`, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ folder, ...facts }) });
        answer = await reply.json();
      } catch { answer = null; }
      if (answer && !answer.error) return answer;
      say(answer?.error || find("template.trouble").innerHTML, { trouble: true });
      return null;
    };
    let quiet = 0;
    const say = (words, { undo = false, trouble = false } = {}) => {
      toast.innerHTML = `<span>${words}</span>`;
      if (undo) toast.append(find("template.undo").content.cloneNode(true));
      toast.classList.toggle("trouble", trouble);
      toast.hidden = false;
      (find("dialog[open]") || root).append(toast); // what is outside an open dialog is neither seen nor heard
      clearTimeout(quiet);
      quiet = setTimeout(() => { toast.hidden = true; }, trouble ? 8000 : 6000);
    };
    const query = () => {
      const of = (kind) => likes.filter((one) => one.kind === kind).map((one) => one.value);
      return { ...wanted, text: text.value, sort, like: of("like"), unlike: of("unlike"), given: of("given") };
    };

    // ---- the wall

    const shots = () => all(".pictures .shot");
    const mark = (shot) => shot.setAttribute("aria-pressed", String(chosen.has(shot.dataset.id)));
    const add = (cells, { after = null } = {}) => {
      const part = document.createElement("template");
      part.innerHTML = cells;
      const last = Array.from(pictures.querySelectorAll(".day")).at(-1)?.dataset.day, first = part.content.querySelector(".day");
      if (!after && first && first.dataset.day === last) first.remove();
      const fresh = Array.from(part.content.querySelectorAll(".shot"));
      fresh.forEach(mark);
      if (after) after.after(part.content); else pictures.append(part.content);
      if (!pictures.querySelector("[tabindex='0']")) shots()[0]?.setAttribute("tabindex", "0");
      return fresh;
    };
    const standing = (answer) => {
      const place = find(".filling");
      if (place.innerHTML !== answer.filling) place.innerHTML = answer.filling;
      place.hidden = !answer.filling;
      running = answer.running;
    };
    // The wall anew, or its next page. An answer that was overtaken by another question is left aside, and a `calm` one where the
    // artist has begun to choose meanwhile.
    const look = async ({ next = false, count = 0, calm = false } = {}) => {
      if (next && (busy || !more)) return;
      const turn = ++asked;
      busy = true;
      root.classList.add("asking");
      const answer = await ask("find", { ...query(), skip: next ? shown : 0, count });
      if (turn !== asked) return;
      busy = false;
      root.classList.remove("asking");
      if (!answer) return false;
      if (calm && (chosen.size || held || parts.isOpen())) return true;
      const focused = document.activeElement?.closest?.(".pictures .shot")?.dataset.id;
      if (!next) { pictures.replaceChildren(); shown = 0; }
      add(answer.cells);
      shown += answer.found;
      more = answer.more;
      find(".found").innerHTML = answer.total ? answer.told : "";
      find(".nothing").innerHTML = answer.nothing;
      find(".nothing").hidden = !answer.nothing;
      for (const one of all("[name=library-sort]")) one.checked = one.value === answer.order;
      root.classList.toggle("likely", answer.order === "likeness");
      standing(answer);
      if (focused && !next) shotOf(focused)?.focus({ preventScroll: true });
      if (!next) tell();
      requestAnimationFrame(further);
      return true;
    };
    const shotOf = (id) => pictures.querySelector(`.shot[data-id="${CSS.escape(id)}"]`);
    const further = () => {
      if (more && !busy && element.offsetParent && find(".further").getBoundingClientRect().top < innerHeight + FAR) look({ next: true });
    };
    const menus = async () => {
      const answer = await ask("choices");
      if (!answer) return;
      for (const [name, inside] of Object.entries(answer.menus)) find(`[data-menu="${name}"] .list`).innerHTML = inside;
      const folders = find("[data-fill=folder]");
      if (folders) folders.innerHTML = answer.folder;
      find("[data-fill=tags]").replaceChildren(...answer.tags.map((tag) => Object.assign(document.createElement("button"), { type: "button", textContent: tag })));
      for (const one of find("[data-fill=tags]").children) one.dataset.addTag = one.textContent;
      const bin = find("[data-toggle=binned]");
      bin.querySelector(".name").innerHTML = answer.bin;
      bin.hidden = !answer.own;
      own = answer.own;
      find(".sure p").innerHTML = answer.sure;
      root.dataset.binned = answer.binned ? "some" : "";
      showFilters();
    };
    const showFilters = () => {
      for (const one of all(".narrow [data-menu]")) {
        const name = one.dataset.menu, value = name === "folder" ? folder : wanted[name];
        const words = find(`[data-choose="${name}"][data-value="${CSS.escape(value || "")}"]`)?.firstElementChild;
        one.classList.toggle("on", Boolean(value));
        one.querySelector(".value").innerHTML = "";
        if (!value) continue;
        if (words) one.querySelector(".value").append(words.cloneNode(true));
        else one.querySelector(".value").textContent = value;
      }
      for (const one of all("[data-toggle]")) one.setAttribute("aria-pressed", String(Boolean(wanted[one.dataset.toggle])));
      root.dataset.place = wanted.binned ? "bin" : "wall";
      find("[data-do=clear]").hidden = !(text.value || likes.length);
      root.dataset.own = own ? "yes" : "";
    };
    // A filter that the server does not understand is taken back.
    const change = async (facts) => {
      const before = { ...wanted };
      Object.assign(wanted, facts);
      if ("binned" in facts) choose([]);
      showFilters();
      if (await look() === false) { Object.assign(wanted, before); showFilters(); }
    };

    // ---- choosing

    const tell = () => {
      for (const id of chosen) if (!shotOf(id)) chosen.delete(id);
      shots().forEach(mark);
      tray.hidden = !chosen.size;
      root.classList.toggle("choosing", chosen.size > 0);
      tray.querySelector(".count").innerHTML = find("template.chosen").innerHTML.replaceAll("#", chosen.size);
      tray.dataset.count = chosen.size > 4 ? "many" : chosen.size > 1 ? "some" : "one";
      if (!chosen.size) for (const one of tray.querySelectorAll("details[open]")) one.open = false;
    };
    const choose = (ids, { alone = true } = {}) => {
      if (alone) chosen.clear();
      for (const id of ids) chosen.add(id);
      tell();
    };
    const toggle = (shot) => {
      const id = shot.dataset.id;
      if (!chosen.delete(id)) chosen.add(id);
      anchor = id;
      tell();
    };
    const between = (shot) => {
      const ids = shots().map((one) => one.dataset.id), from = Math.max(0, ids.indexOf(anchor ?? shot.dataset.id)), to = ids.indexOf(shot.dataset.id);
      choose(ids.slice(Math.min(from, to), Math.max(from, to) + 1));
    };
    const focus = (shot) => {
      if (!shot) return;
      for (const one of all(".pictures [tabindex='0']")) one.setAttribute("tabindex", "-1");
      shot.setAttribute("tabindex", "0");
      shot.focus();
    };
    const current = () => document.activeElement?.closest?.(".pictures .shot") || null;
    // The pictures that a deed is for: those of the large view, else the chosen ones, else the one that has the focus.
    const meant = () => {
      const large = find("dialog.big[open] article");
      if (large) return [large.dataset.id];
      if (chosen.size) return shots().map((one) => one.dataset.id).filter((id) => chosen.has(id));
      return current() ? [current().dataset.id] : [];
    };

    // Dragging with the mouse draws a band: pictures under it are chosen.
    let band = null, held = null, swallowed = false;
    const cover = (event) => {
      const [x, y] = [event.pageX, event.pageY], box = { left: Math.min(x, band.x), right: Math.max(x, band.x), top: Math.min(y, band.y), bottom: Math.max(y, band.y) };
      const home = pictures.getBoundingClientRect();
      Object.assign(band.mark.style, { left: `${box.left - scrollX - home.left}px`, top: `${box.top - scrollY - home.top}px`, width: `${box.right - box.left}px`, height: `${box.bottom - box.top}px` });
      const under = shots().filter((one) => {
        const at = one.getBoundingClientRect();
        return at.right + scrollX > box.left && at.left + scrollX < box.right && at.bottom + scrollY > box.top && at.top + scrollY < box.bottom;
      });
      choose([...band.before, ...under.map((one) => one.dataset.id)]);
      if (event.clientY > innerHeight - 48) scrollBy(0, 16); else if (event.clientY < 48) scrollBy(0, -16);
    };
    pictures.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      swallowed = false;
      if (event.pointerType === "mouse") held = { x: event.pageX, y: event.pageY, before: event.ctrlKey || event.metaKey || event.shiftKey ? [...chosen] : [] };
      else {
        const shot = event.target.closest(".shot"), [x, y] = [event.clientX, event.clientY];
        const press = setTimeout(() => { if (shot) { swallowed = true; toggle(shot); navigator.vibrate?.(10); } }, 450);
        const end = (moved) => { if (moved.type !== "pointermove" || Math.hypot(moved.clientX - x, moved.clientY - y) > 8) { clearTimeout(press); for (const name of ["pointermove", "pointerup", "pointercancel"]) removeEventListener(name, end); } };
        for (const name of ["pointermove", "pointerup", "pointercancel"]) addEventListener(name, end);
      }
    });
    pictures.addEventListener("contextmenu", (event) => { if (swallowed) event.preventDefault(); });
    addEventListener("pointermove", (event) => {
      if (!held || !element.offsetParent) return;
      if (!band && Math.hypot(event.pageX - held.x, event.pageY - held.y) > 6) {
        band = { ...held, mark: Object.assign(document.createElement("i"), { className: "lasso" }) };
        pictures.append(band.mark);
      }
      if (band) { event.preventDefault(); cover(event); }
    });
    addEventListener("pointerup", () => {
      if (band) { band.mark.remove(); swallowed = true; setTimeout(() => { swallowed = false; }, 300); } // the click that follows it
      band = held = null;
    });
    pictures.addEventListener("click", (event) => {
      const shot = event.target.closest(".shot");
      if (swallowed) { swallowed = false; event.preventDefault(); return; }
      if (!shot) { if (event.target === pictures) choose([]); return; }
      focus(shot);
      if (event.shiftKey) between(shot);
      else if (event.target.closest(".pile")) open(shot);
      else if (event.ctrlKey || event.metaKey || event.target.closest(".tick") || (chosen.size && event.detail)) toggle(shot);
      else view(shot.dataset.id);
    });

    // A stack opens in its place and closes again.
    const open = async (shot) => {
      const behind = all(`.pictures [data-behind="${CSS.escape(shot.dataset.id)}"]`);
      shot.classList.toggle("opened", !behind.length);
      if (behind.length) { behind.forEach((one) => one.remove()); tell(); return; }
      const ids = shot.dataset.stack.split("\n").filter(Boolean);
      const answer = ids.length && await ask("cells", { ids });
      if (answer) for (const one of add(answer.cells, { after: shot })) one.dataset.behind = shot.dataset.id;
    };

    // ---- working

    const act = async (what, ids, facts = {}) => {
      if (!ids.length && what !== "empty") return false;
      const answer = await ask("act", { do: what, ids, ...facts });
      if (!answer) return false;
      say(answer.said, { undo: answer.undo });
      if (what === "star" || what === "unstar") for (const id of ids) if (shotOf(id)) shotOf(id).dataset.star = what === "star" ? "yes" : "";
      if (["bin", "restore", "empty"].includes(what)) {
        const at = shots().findIndex((one) => ids.includes(one.dataset.id)), had = Boolean(current());
        for (const id of ids) { shotOf(id)?.remove(); chosen.delete(id); }
        tell();
        const next = shots()[Math.min(Math.max(at, 0), shots().length - 1)];
        if (had) focus(next); else next?.setAttribute("tabindex", "0");
        await look({ count: Math.max(shown - ids.length, 96) });
        menus();
      }
      if (["tag", "untag"].includes(what)) menus();
      return true;
    };
    const star = async (ids) => {
      const off = ids.length > 0 && ids.every((id) => (shotOf(id)?.dataset.star ?? find("dialog.big article")?.dataset.star) === "yes");
      if (await act(off ? "unstar" : "star", ids)) parts.again();
    };
    const undo = async () => {
      const answer = await ask("undo");
      if (!answer) return;
      say(answer.said);
      await look({ count: Math.max(shown, 96) });
      menus();
      parts.again();
    };
    const zip = (ids) => packed("zip", "zipping", ids);
    const exported = (ids, place) => {
      const [outline, moving] = ["outline", "moving"].map((name) => find(`.dress [name=${name}]`).checked);
      return packed("export", "exporting", ids, { place, outline, moving });
    };
    const packed = async (question, saying, ids, facts = {}) => {
      say(find(`template.${saying}`).innerHTML.replaceAll("#", ids.length));
      const answer = await ask(question, { ids, ...facts });
      if (!answer) return;
      const link = Object.assign(document.createElement("a"), { hidden: true, download: answer.name });
      link.setAttribute("href", answer.address);
      root.append(link);
      await new Promise((done) => setTimeout(done)); // where cookies are refused, the page's script tells in it who asks
      link.click();
      link.remove();
      say(find("template.zipped").innerHTML);
    };
    const like = (kind, ids) => {
      for (const id of ids.slice(0, 16)) {
        const at = likes.findIndex((one) => one.value === id);
        if (at >= 0) likes.splice(at, 1);
        likes.push({ kind, value: id, src: shotOf(id)?.querySelector("img").src || find("dialog.big .stand img")?.src });
      }
      choose([]);
      parts.close();
      sort = "";
      showLikes();
      look();
      scrollTo({ top: 0 });
    };
    const showLikes = () => {
      find(".likes").replaceChildren(...likes.map((one, at) => {
        const token = document.createElement("button");
        Object.assign(token, { type: "button", className: one.kind === "unlike" ? "token minus" : "token" });
        token.dataset.forget = at;
        token.setAttribute("aria-label", find(`template.${one.kind === "unlike" ? "unliked" : "liked"}`).dataset.words);
        token.append(Object.assign(document.createElement("img"), { src: one.src, alt: "" }), Object.assign(document.createElement("i"), { textContent: one.kind === "unlike" ? "−" : "+" }));
        return token;
      }));
      showFilters();
    };
    // Pictures from elsewhere are made small here and travel with the question.
    const lookFor = async (files) => {
      for (const file of Array.from(files).filter((one) => one.type.startsWith("image/")).slice(0, 4)) {
        try {
          const picture = await createImageBitmap(file), share = Math.min(1, SIDE / Math.max(picture.width, picture.height));
          const page = Object.assign(document.createElement("canvas"), { width: Math.max(1, Math.round(picture.width * share)), height: Math.max(1, Math.round(picture.height * share)) });
          const pen = page.getContext("2d");
          pen.fillStyle = "#fff";
          pen.fillRect(0, 0, page.width, page.height);
          pen.drawImage(picture, 0, 0, page.width, page.height);
          const value = page.toDataURL("image/jpeg", .9);
          likes.push({ kind: "given", value, src: value });
        } catch { say(find("template.unopened").innerHTML, { trouble: true }); }
      }
      sort = "";
      showLikes();
      look();
    };
    // To another tab: one that was made here by its name, one from elsewhere as a file, as if it had been dropped there.
    const send = async (to) => {
      const [id] = meant(), place = find("dialog.big[open] article") || shotOf(id);
      if (!place) return;
      const { name, file } = place.dataset;
      parts.close();
      if (name) { trigger("click", { act: to, name }); return; }
      const data = await (await fetch(file)).blob(), carried = new File([data], decodeURIComponent(file.split("?")[0].split("/").at(-1)), { type: data.type });
      const again = to === "reuse" || to === "remix";
      document.querySelector(`#tab-${again ? "generate" : to}-button`)?.click();
      window.atelier.giveFile(again ? "settings" : to, carried);
    };
    const view = (id) => parts.view(id);
    const parts = window.atelier.libraryLarge({ root, ask, find, all, shots, shotOf, focus });

    const deeds = {
      clear: () => { text.value = ""; likes.length = 0; sort = ""; showLikes(); look(); text.focus(); },
      all: () => { text.value = ""; likes.length = 0; sort = ""; showLikes(); change({ tool: "", date: "", seed: "", model: "", tag: "", words: "", starred: false, binned: false }); },
      picture: () => find(".seek [type=file]").click(),
      keys: () => find("dialog.keys-of").showModal(),
      close: () => parts.close(),
      none: () => choose([]),
      star: () => star(meant()),
      untag: async (one) => { if (await act("untag", meant(), { tag: one.dataset.tag })) parts.again(); },
      like: () => like("like", meant()),
      unlike: () => like("unlike", meant()),
      compare: () => parts.compare(meant()),
      send: (one) => send(one.dataset.to),
      zip: () => zip(meant()),
      export: (one) => exported(meant(), one.dataset.place),
      bin: async () => { const ids = meant(); if (parts.isOpen()) await parts.turnAway(ids); await act("bin", ids); },
      restore: async () => { const ids = meant(); parts.close(); await act("restore", ids); },
      sure: () => find("dialog.sure").showModal(),
      empty: async () => { parts.close(); await act("empty", []); },
      undo,
      index: async (one) => { const answer = await ask("index", { do: one.dataset.to }); if (answer) standing(answer); },
      broken: async () => { const answer = await ask("broken"); if (answer) parts.show("dialog.told-of", answer.html); },
      look: (one) => view(one.dataset.id),
      turn: (one) => parts.turn(Number(one.dataset.by)),
    };
    root.addEventListener("click", (event) => {
      const one = event.target.closest("[data-do], [data-toggle], [data-choose], [data-preset], [data-forget], [data-add-tag]");
      const list = event.target.closest("details.menu");
      if (one && root.contains(one)) {
        if (one.dataset.do) deeds[one.dataset.do]?.(one);
        if (one.dataset.toggle) change({ [one.dataset.toggle]: !wanted[one.dataset.toggle] });
        if (one.dataset.choose === "folder") { folder = one.dataset.value; choose([]); deeds.clear(); menus(); index(); } else if (one.dataset.choose) change({ [one.dataset.choose]: one.dataset.value });
        if (one.dataset.preset) change({ date: preset(one.dataset.preset) });
        if (one.dataset.forget) { likes.splice(Number(one.dataset.forget), 1); showLikes(); look(); text.focus(); }
        if (one.dataset.addTag) act("tag", meant(), { tag: one.dataset.addTag }).then(() => parts.again());
        if (list && (one.dataset.choose || one.dataset.preset || one.dataset.addTag || one.dataset.do)) { list.open = false; if (tray.hidden || !tray.contains(list)) list.querySelector("summary").focus(); }
      }
      for (const menu of all("details.menu[open]")) if (menu !== list) menu.open = false;
    });
    const preset = (name) => {
      const day = (time) => { const at = new Date(time); return [at.getFullYear(), at.getMonth() + 1, at.getDate()].map((part) => String(part).padStart(2, "0")).join("-"); };
      const today = day(Date.now());
      return { today, week: `${day(Date.now() - 6 * DAY)}..`, month: today.slice(0, 7), year: today.slice(0, 4) }[name];
    };
    root.addEventListener("submit", async (event) => {
      event.preventDefault();
      const line = event.target, name = line.dataset.set, value = name && (line.elements[name]?.value ?? "").trim();
      if (line === form) { clearTimeout(typing); sort = ""; look(); return; }
      if (line.closest("details")) line.closest("details").open = false;
      if (name === "add-tag") { if (value && await act("tag", meant(), { tag: value })) { line.reset(); parts.again(); } }
      else if (name === "note") { if (await act("note", meant(), { note: value })) { if (!line.closest("dialog")) line.reset(); parts.again(); } }
      else if (name === "folder") {
        const answer = await ask("folder", { place: value });
        if (answer) { folder = answer.folder; root.dataset.folder = folder; choose([]); await menus(); deeds.clear(); index(); }
      } else change({ [name]: value });
    });
    let typing = 0;
    text.addEventListener("input", () => {
      showFilters();
      clearTimeout(typing);
      typing = setTimeout(() => { sort = ""; look(); }, text.value ? 700 : 0);
    });
    for (const one of all("[name=library-sort]")) one.addEventListener("change", () => { sort = one.value; look(); });
    form.querySelector("[type=file]").addEventListener("change", (event) => { lookFor(event.target.files); event.target.value = ""; });
    const size = find("[name=size]");
    size.value = kept.get("wall") || (innerWidth < 640 ? 104 : 176);
    const resize = () => pictures.style.setProperty("--cell", `${size.value}px`);
    size.addEventListener("input", () => { resize(); kept.set("wall", size.value); });
    resize();

    // ---- the keyboard

    const walk = (shot, to, spreads) => {
      if (spreads && anchor === null) anchor = shot.dataset.id;
      focus(to);
      if (spreads) between(to); else anchor = null;
    };
    window.atelier.libraryKeys({ element, root, find, shots, chosen, choose, current, toggle, walk, open, undo, deeds, parts, isOwn: () => own, isBin: () => wanted.binned });
    pictures.addEventListener("keyup", (event) => { if (event.key === " ") event.preventDefault(); });
    pictures.addEventListener("focusin", (event) => { const shot = event.target.closest(".shot"); if (shot) for (const one of all(".pictures [tabindex='0']")) if (one !== shot) one.setAttribute("tabindex", "-1"); shot?.setAttribute("tabindex", "0"); });

    // ---- coming and going

    // The index is filled in the background unless the artist stopped it; pictures that came in meanwhile are hung.
    const index = async () => {
      const answer = await ask("index", {});
      if (!answer) return;
      standing(answer);
      if (answer.stage !== "stopped" && !answer.running) { const begun = await ask("index", { do: "start" }); if (begun) standing(begun); }
    };
    setInterval(async () => {
      if (!running || !element.offsetParent || busy) return;
      const answer = await ask("index", {});
      if (!answer) { running = false; return; }
      standing(answer);
      if (!answer.running && !chosen.size && !parts.isOpen() && shown <= 960) look({ count: Math.max(shown, 96), calm: true });
    }, 1200);
    addEventListener("scroll", further, { passive: true });
    addEventListener("resize", further);
    new IntersectionObserver(async (entries) => {
      if (!entries.at(-1).isIntersecting || document.hidden) return;
      const first = !started;
      started = true;
      if (!first && (chosen.size || parts.isOpen())) return;
      await look({ count: first ? 0 : Math.min(Math.max(shown, 96), 480), calm: !first });
      menus();
      index();
    }).observe(root);
    Object.assign(window.atelier, { lookFor });
  };
  Object.assign(window.atelier, { library: (element, trigger) => hang(element, trigger) });
})();
