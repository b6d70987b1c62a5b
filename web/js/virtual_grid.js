// A grid of many square pictures, of which only those in sight exist as elements.
import { element } from "./elements.js";

const GAP = 6;
const SMALLEST = 80;
const OVER = 2;
// What moves in one frame by more than this share of what is in sight cannot be made out.
const BLUR = 0.5;
// Pictures of what is only scrolled past are not asked for.
const LOOK_MS = 100;
const AT_ONCE = 4;

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
  const side = Math.max(1, Math.floor((width - GAP * (columns - 1)) / columns));
  const rows = Math.ceil(count / columns);
  return { columns, side, height: rows ? rows * (side + GAP) - GAP : 0 };
}

// Bare squares where the tiles of the full rows lie, as one picture.
function groundOf({ columns, side }, count) {
  const row = side + GAP;
  const bars = (to) => `linear-gradient(to ${to}, transparent ${side}px, var(--comfy-menu-bg) 0)`;
  return {
    width: `${columns * row - GAP}px`,
    height: `${Math.floor(count / columns) * row}px`,
    background: `${bars("right")}, ${bars("bottom")}, var(--comfy-input-bg)`,
    backgroundSize: `${row}px ${row}px`,
  };
}

// Which tiles are in sight, from the first up to and without the last.
export function inSight({ columns, side }, top, height, count) {
  const row = side + GAP;
  const first = Math.max(0, Math.floor(top / row) - OVER) * columns;
  const last = Math.min(count, (Math.ceil((top + height) / row) + OVER) * columns);
  return { first: Math.min(first, last), last };
}

// make() gives a tile; fill(tile, id) makes it an id's; load(tile, id) brings its picture, a promise that ends with it.
//
// To scroll is not to lay out: a tile is used again where it is, with its size and its place alone written, and what
// only comes and goes is hidden once all is at rest. While the list flies past nothing is written at all, and bare
// squares fly past: what a frame writes is also what the page has to collect later, at the cost of a frame.
export function virtualGrid({ make, fill, load }) {
  const ground = element("div", { style: { position: "absolute", left: "0", top: "0" } });
  const space = element("div", { style: { position: "relative" } }, ground);
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
  let looking;
  let lastTop = 0;
  let frameTop = 0;

  // A few at a time: ComfyUI's own requests find a free line, and no frame has to take in all of them. First those in
  // sight, as one reads, and at the end those above.
  function bring() {
    const { first, last } = inSight(layout, root.scrollTop, height, ids.length);
    const above = Math.floor(root.scrollTop / (layout.side + GAP)) * layout.columns;
    const wanted = [...shown].filter(([at, tile]) => at >= first && at < last && !tile.asked);
    wanted.sort(([one], [other]) => (one < above) - (other < above) || one - other);
    const free = AT_ONCE - [...shown.values()].filter((tile) => tile.loading).length;
    for (const [, tile] of wanted.slice(0, Math.max(0, free))) {
      const id = tile.id;
      tile.asked = tile.loading = true;
      load(tile.element, id).then(() => {
        if (tile.id !== id) return;
        tile.loading = false;
        if (!looking) bring();
      });
    }
  }

  function look() {
    looking = undefined;
    const moved = Math.abs(root.scrollTop - lastTop);
    lastTop = root.scrollTop;
    if (moved < height / 2) bring();
    if (moved) lookSoon();
    else for (const tile of spare) tile.element.hidden = true;
  }

  function lookSoon() {
    looking ??= setTimeout(look, LOOK_MS);
  }

  function place(tile, at) {
    const { columns, side } = layout;
    const x = (at % columns) * (side + GAP);
    const y = Math.floor(at / columns) * (side + GAP);
    Object.assign(tile.element.style, { width: `${side}px`, height: `${side}px`, left: `${x}px`, top: `${y}px` });
  }

  function spareTile() {
    // the first one: it was in the same column
    const tile = spare.shift() ?? { element: make() };
    if (!tile.element.parentNode) {
      tile.element.style.position = "absolute";
      space.append(tile.element);
    }
    tile.element.hidden = false;
    return tile;
  }

  function draw() {
    if (!width) return;
    const { first, last } = inSight(layout, root.scrollTop, height, ids.length);
    for (const [at, tile] of shown) {
      if (at >= first && at < last && tile.id === ids[at]) continue;
      shown.delete(at);
      spare.push(tile);
    }
    for (let at = first; at < last; at++) {
      if (shown.has(at)) continue;
      const tile = spareTile();
      Object.assign(tile, { id: ids[at], asked: false, loading: false });
      fill(tile.element, tile.id);
      place(tile, at);
      shown.set(at, tile);
    }
    lookSoon();
  }

  function frame() {
    due = false;
    const top = root.scrollTop;
    const flies = Math.abs(top - frameTop) > height * BLUR;
    frameTop = top;
    if (flies) drawSoon();
    else draw();
  }

  function drawSoon() {
    if (due) return;
    due = true;
    requestAnimationFrame(frame);
  }

  function measure() {
    // while it is not in sight it stays as it is, for when one comes back to it
    if (!root.clientWidth) return;
    width = space.clientWidth;
    height = root.clientHeight;
    layout = layoutOf(width, ids.length);
    space.style.height = `${layout.height}px`;
    Object.assign(ground.style, groundOf(layout, ids.length));
    for (const [at, tile] of shown) place(tile, at);
    draw();
    // those that are left over may be in sight
    for (const tile of spare) tile.element.hidden = true;
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
      ids = [];
      watch.disconnect();
      clearTimeout(looking);
    },
  };
}
