// What the page's scripts share, in window.atelier: what the browser keeps, words in both languages, fields.
(() => {
  const find = (selector) => document.querySelector(selector);
  const kept = {
    get: (name) => { try { return localStorage.getItem("atelier-" + name) || ""; } catch { return ""; } },
    set: (name, value) => { try { localStorage.setItem("atelier-" + name, value); } catch { /* private window */ } },
  };
  const random = (bytes) => Array.from(crypto.getRandomValues(new Uint8Array(bytes)), (b) => b.toString(16).padStart(2, "0")).join("");

  // Words of the page that a script needs: with marks for both languages, and plainly in the one that is spoken. "#" is the fact.
  const wordsIn = (name) => Array.from(document.querySelectorAll(`[data-words] [data-word=${name}]`));
  const word = (name, fact = "") => (wordsIn(name)[0]?.innerHTML || "").replaceAll("#", String(fact));
  const plain = (name) => wordsIn(name)[0]?.querySelector(`.${document.documentElement.dataset.lang}`)?.textContent || "";

  // A value written as if it were typed, so that the page's own state follows.
  const write = (box, value) => {
    if (!box || box.value === value) return;
    Object.getOwnPropertyDescriptor(Object.getPrototypeOf(box), "value").set.call(box, value);
    box.dispatchEvent(new Event("input", { bubbles: true }));
  };

  // The values of fields, by their names.
  const entriesIn = (place, name) => document.querySelectorAll(place.split(",").map((one) => `${one} [name${name ? `="${CSS.escape(name)}"` : ""}]`).join());
  const read = (inputs) => {
    const found = {};
    for (const one of inputs) {
      if (one.type === "radio") { if (one.checked) found[one.name] = one.value; }
      else if (one.type === "checkbox") found[one.name] = one.checked;
      else if (one.type === "number" || one.type === "range") found[one.name] = one.value === "" ? null : Number(one.value);
      else found[one.name] = one.value;
    }
    return found;
  };
  const put = (inputs, value) => {
    for (const one of inputs) {
      if (one.type === "radio") one.checked = one.value === value;
      else if (one.type === "checkbox") one.checked = Boolean(value);
      else one.value = value ?? "";
    }
  };

  // Calls `answer` now, and with the records of whatever changes in the element.
  const watching = (element, answer) => { new MutationObserver(answer).observe(element, { childList: true, subtree: true }); answer(); };

  // Options and placeholders have no room for two languages: they get the words of the one that is spoken.
  const inWords = (place) => {
    const language = document.documentElement.dataset.lang === "zh" ? "zh" : "en";
    for (const one of place.querySelectorAll(`[data-said-${language}]`))
      one[one.matches("option") ? "textContent" : "placeholder"] = one.getAttribute(`data-said-${language}`);
  };

  window.atelier = { find, kept, random, word, plain, write, entriesIn, read, put, watching, inWords };
})();
