// A grid of many square pictures, of which only those in sight exist as elements.
import { element } from "./elements.js";

const GAP = 6;
const SMALLEST = 80;
const OVER = 2;
// Pictures of what is only scrolled past are not asked for.
const LOAD_MS = 100;

// A layer of its own: what is scrolled is then drawn beside the page's own work.
const STYLE = {
  flex: "1",
  minHeight: "0",
  overflowY: "auto",
  contain: "strict",
  scrollbarWidth: "thin",
  background: "var(--comfy-menu-bg)",
  willChange: "transform",
};

// How the grid lies: columns, the side of a tile, the height of all.
export function layoutOf(width, count) {
  const columns = Math.max(1, Math.floor((width + GAP) / (SMALLEST + GAP)));
  const side = Math.max(1, (width - GAP * (columns - 1)) / columns);
  const rows = Math.ceil(count / columns);
  return { columns, side, height: rows ? rows * (side + GAP) - GAP : 0 };
}

// Which tiles are in sight, from the first up to and without the last.
export function inSight({ columns, side }, top, height, count) {
  const row = side + GAP;
  const first = Math.max(0, Math.floor(top / row) - OVER) * columns;
  const last = Math.min(count, (Math.ceil((top + height) / row) + OVER) * columns);
  return { first: Math.min(first, last), last };
}

// make() gives a tile; fill(tile, id) makes it an id's; load(tile, id) brings its picture.
export function virtualGrid({ make, fill, load }) {
  const space = element("div", { style: { position: "relative" } });
  const root = element("div", { style: STYLE }, space);
  root.tabIndex = -1;
  root.setAttribute("role", "group");
  const shown = new Map();
  const spare = [];
  let ids = [];
  let layout = layoutOf(0, 0);
  let width = 0;
  let height = 0;
  let due = false;
  let loading;
  let lastTop = 0;

  function bring() {
    loading = undefined;
    const fast = Math.abs(root.scrollTop - lastTop) > height / 2;
    lastTop = root.scrollTop;
    if (fast) {
      loading = setTimeout(bring, LOAD_MS);
      return;
    }
    const { first, last } = inSight(layout, root.scrollTop, height, ids.length);
    for (const [at, tile] of shown) {
      if (at < first || at >= last || tile.loaded) continue;
      tile.loaded = true;
      load(tile.element, ids[at]);
    }
  }

  function place(tile, at) {
    const { columns, side } = layout;
    const x = (at % columns) * (side + GAP);
    const y = Math.floor(at / columns) * (side + GAP);
    Object.assign(tile.element.style, { width: `${side}px`, height: `${side}px`, transform: `translate(${x}px, ${y}px)` });
  }

  function draw() {
    due = false;
    if (!width) return;
    const { first, last } = inSight(layout, root.scrollTop, height, ids.length);
    for (const [at, tile] of shown) {
      if (at >= first && at < last && tile.id === ids[at]) continue;
      shown.delete(at);
      spare.push(tile);
    }
    for (let at = first; at < last; at++) {
      if (shown.has(at)) continue;
      let tile = spare.pop();
      if (!tile) {
        tile = { element: make() };
        Object.assign(tile.element.style, { position: "absolute", left: "0", top: "0" });
        space.append(tile.element);
      }
      tile.id = ids[at];
      tile.loaded = false;
      tile.element.hidden = false;
      fill(tile.element, tile.id);
      place(tile, at);
      shown.set(at, tile);
    }
    for (const tile of spare) tile.element.hidden = true;
    loading ??= setTimeout(bring, LOAD_MS);
  }

  function drawSoon() {
    if (due) return;
    due = true;
    requestAnimationFrame(draw);
  }

  function measure() {
    // while it is not in sight it stays as it is, for when one comes back to it
    if (!root.clientWidth) return;
    width = space.clientWidth;
    height = root.clientHeight;
    layout = layoutOf(width, ids.length);
    space.style.height = `${layout.height}px`;
    for (const [at, tile] of shown) place(tile, at);
    draw();
  }

  const watch = new ResizeObserver(measure);
  watch.observe(root);
  root.addEventListener("scroll", drawSoon, { passive: true });
  return {
    root,
    // The ids of all, in order; what is in sight already stays as it is.
    show(given) {
      ids = given;
      measure();
    },
    end() {
      watch.disconnect();
      clearTimeout(loading);
    },
  };
}
