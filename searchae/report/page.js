"use strict";
(() => {
  const charts = JSON.parse(document.getElementById("charts").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const coarse = matchMedia("(pointer: coarse)").matches;
  const style = () => getComputedStyle(document.documentElement);

  // The colours of text and lines follow the page, those of data stay: they have a meaning.
  function colours(layout, light) {
    const css = (name) => style().getPropertyValue(name).trim();
    const ink = light ? "#333a41" : css("--muted");
    const grid = light ? "rgba(110,120,130,0.22)" : css("--grid");
    const update = {
      "font.color": ink,
      "hoverlabel.bgcolor": css("--raised"),
      "hoverlabel.bordercolor": css("--line"),
      "hoverlabel.font.color": css("--ink"),
    };
    for (const axis of Object.keys(layout).filter((k) => /^[xy]axis/.test(k))) {
      for (const part of ["gridcolor", "linecolor", "tickcolor"]) update[`${axis}.${part}`] = grid;
    }
    // Names stand on the lines that cross them.
    (layout.annotations ?? []).forEach((_, i) => {
      update[`annotations[${i}].bgcolor`] = light ? "#ffffff" : css("--paper");
    });
    return update;
  }

  function set(layout, update) {
    for (const [path, value] of Object.entries(update)) {
      const keys = path.split(/[.[\]]+/);
      const last = keys.pop();
      keys.reduce((at, key) => (at[key] ??= {}), layout)[last] = value;
    }
  }

  const config = { responsive: true, displaylogo: false, displayModeBar: false };
  const places = Object.keys(charts).map((name) => document.getElementById(name)).filter(Boolean);
  const drawn = places.map((place) => {
    const { data, layout } = charts[place.id];
    set(layout, colours(layout, false));
    layout.autosize = true;
    if (coarse) layout.dragmode = false; // a finger scrolls the page
    return Plotly.newPlot(place, data, layout, config);
  });
  Promise.all(drawn).then(() => { document.documentElement.dataset.drawn = String(drawn.length); });

  // What goes on to the right fades out there.
  for (const box of document.querySelectorAll(".scroll")) {
    const mark = () => {
      const rest = box.scrollWidth - box.clientWidth - box.scrollLeft;
      box.classList.toggle("more", rest > 4);
    };
    box.addEventListener("scroll", mark, { passive: true });
    new ResizeObserver(mark).observe(box);
  }

  function repaint(light) {
    for (const place of places) Plotly.relayout(place, colours(place.layout, light));
  }
  dark.addEventListener("change", () => repaint(false));
  addEventListener("beforeprint", () => repaint(true));
  addEventListener("afterprint", () => repaint(false));
})();
