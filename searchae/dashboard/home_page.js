"use strict";
// Writes on each card of the first page how far its study is, and hides the button that makes studies:
// one that is made there has no spec, so the server refuses it.
(() => {
  const REFRESH_MS = 10000;
  let progress = {}; // title of a card -> text
  let wasHome = false;

  const isHome = () => /^\/dashboard\/?$/.test(location.pathname);

  function write() {
    for (const card of document.querySelectorAll("a.MuiCardActionArea-root")) {
      const title = card.querySelector("h5");
      const text = title && progress[title.textContent];
      let line = card.querySelector(".searchae-progress");
      if (!text) {
        line?.remove();
        continue;
      }
      if (!line) {
        line = document.createElement("div");
        line.className = `${title.nextElementSibling?.className ?? ""} searchae-progress`;
        line.style.maxWidth = "calc(100vw - 7.5rem)"; // a card is wider than a phone
        title.parentElement.append(line);
      }
      if (line.textContent !== text) line.textContent = text;
    }
  }

  async function refresh() {
    try {
      const answer = await fetch("/api/searchae/progress");
      if (answer.ok) progress = await answer.json();
    } catch {
      return; // the server is away: what stands there stays
    }
    if (isHome()) write();
  }

  new MutationObserver(() => {
    if (isHome()) {
      if (!wasHome) refresh();
      write();
      const create = document.querySelector("button:has(svg[data-testid=AddBoxIcon])");
      if (create) create.style.display = "none";
    }
    wasHome = isHome();
  }).observe(document.documentElement, { childList: true, subtree: true });
  setInterval(() => { if (isHome() && !document.hidden) refresh(); }, REFRESH_MS);
})();
