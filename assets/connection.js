// Between page and server: who is here, a line that is cut, and Stop, which waits for nothing.
(() => {
  const root = document.documentElement, { kept, random } = window.atelier;

  // Where visitors are apart, the server knows this one by a cookie, else by what goes with each request: a header, and in the
  // addresses of pictures, films and directions, which a browser fetches by itself, a query.
  const visitor = kept.get("visitor") || random(16);
  kept.set("visitor", visitor);
  if (root.dataset.visitors) {
    const plainly = window.fetch;
    window.fetch = (what, options = {}) => {
      if (new URL(what.url || what, document.baseURI).origin !== location.origin) return plainly(what, options);
      const headers = new Headers(options.headers || what.headers);
      headers.set("X-Atelier-Visitor", visitor);
      return plainly(what, { ...options, headers });
    };
  }
  const tellInAddresses = () => {
    const ours = /^(picture|film|glimpse|direction|library)\//;
    const tell = () => {
      for (const one of document.querySelectorAll("[src], [href]"))
        for (const name of ["src", "href", "data-src"]) {
          const at = one.getAttribute(name);
          if (ours.test(at || "") && !at.includes("visitor=")) one.setAttribute(name, `${at}${at.includes("?") ? "&" : "?"}visitor=${visitor}`);
        }
    };
    new MutationObserver(tell).observe(document.body, { childList: true, subtree: true, attributes: true, attributeFilter: ["src", "href"] });
    tell();
  };

  // A line that is cut, for whatever time: what the page sends is sent again until it arrives. Gradio would reload the page, and
  // what was typed would be lost. Pictures that did not come are asked for again.
  const send = window.fetch;
  const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));
  let leaving = false, unsent = 0;
  addEventListener("pagehide", () => { leaving = true; });
  addEventListener("pageshow", () => { leaving = false; });
  const lineIs = (cut) => {
    const told = document.querySelector("#cut");
    if (told) told.hidden = !cut;
    if (cut) return;
    for (const one of document.images) if (one.complete && !one.naturalWidth && one.getAttribute("src")) one.src = one.src;
  };
  window.fetch = async (what, options = {}) => {
    const asked = what instanceof Request ? what : null;
    const address = new URL(asked ? asked.url : what, document.baseURI), method = options.method || asked?.method || "GET";
    if (address.origin !== location.origin || method.toUpperCase() !== "POST") return send(what, options);
    for (let tries = 0; ; tries++) {
      let answer = null, problem = null;
      try { answer = await send(asked ? asked.clone() : what, options); } catch (one) { problem = one; }
      const cut = problem ? problem instanceof TypeError && !options.signal?.aborted && !leaving : answer.status === 502 || answer.status === 504;
      if (tries && !cut && !--unsent) lineIs(false);
      if (!cut) { if (problem) throw problem; return answer; }
      if (!tries && !unsent++) lineIs(true);
      await pause(Math.min(500 * 2 ** tries, 3000));
    }
  };

  // Stop and Pause tell the server at once, by an address that waits for nothing; the button's own answer follows.
  document.addEventListener("click", (event) => {
    const at = event.target.closest?.("#stop, [data-act=stop], [data-act=pause]");
    const job = at?.closest("[role=tabpanel]")?.querySelector("section[data-job]")?.dataset.job;
    if (job) fetch(`stop/${job}`, { method: "POST" }).catch(() => {});
  }, true);

  Object.assign(window.atelier, {
    // The visitor, once the server knows who it is.
    async known() {
      if (root.dataset.visitors && !(await (await fetch("visitor")).json()).cookie) tellInAddresses();
      return visitor;
    },
  });
})();
