// The price on a node before Run, where the pack knows it: of its variations, and of its pictures where they can be counted.
import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";
import { allNodes } from "./graphs.js";
import { picturesInto } from "./pictures.js";

const PAID = { KontextEdit: "flux-kontext-dev", KontextSubmit: "flux-kontext-dev", KontextEditFolder: "flux-kontext-dev" };
// Nodes on which the model is chosen; its price is the one that was published when this version was made.
const CHOSEN = new Set(["OxenEdit", "OxenSubmit"]);
const LOOK_MS = 500;
const COLOURS = { fgColor: "#e8e8e8", bgColor: "#3f4a3c" };

let asked;
let prices = {};
let listed = {};
const shown = new WeakMap();

// Asked once, when a node that costs is there; without an answer nothing is said.
function ask() {
  asked ??= api
    .fetchApi("/kontext-bridge/prices")
    .then((reply) => (reply.ok ? reply.json() : {}))
    .then((answer) => {
      prices = answer.usd ?? {};
      listed = answer.listed ?? {};
      setInterval(look, LOOK_MS);
    })
    .catch(() => {});
}

// The classic renderer asks a badge at each drawing; Nodes 2.0 once, and again when a widget changes that it read.
function look() {
  if (document.hidden) return;
  for (const [, node] of allNodes()) {
    if (!isPaid(node) || shown.get(node) === priceOn(node)) continue;
    shown.set(node, priceOn(node));
    const variations = widgetOf(node);
    if (variations) {
      const value = variations.value;
      variations.value = value === 1 ? 2 : 1;
      variations.value = value;
    }
    node.setDirtyCanvas?.(true, true);
  }
}

const isPaid = (node) => node.comfyClass in PAID || CHOSEN.has(node.comfyClass);

const widgetOf = (node, name = "variations") => node.widgets?.find((widget) => widget.name === name);

// Dollars for one picture; NaN where that is not known.
function eachOf(node) {
  const model = CHOSEN.has(node.comfyClass) ? widgetOf(node, "model")?.value : PAID[node.comfyClass];
  if (model in prices) return Number(prices[model]);
  const { flat, grid } = listed[model] ?? {};
  if (!grid) return Number(flat);
  const rows = Object.values(grid);
  const row = rows.length === 1 ? rows[0] : grid[widgetOf(node, "model.quality")?.value];
  return Number(row?.[widgetOf(node, "model.resolution")?.value]);
}

export function dollars(amount) {
  const exact = Number(amount.toFixed(4));
  return `$${Number.isInteger(Math.round(exact * 1e4) / 100) ? exact.toFixed(2) : exact}`;
}

// "$0.16", or "$0.16 a picture" where it is not known how many there are; "" where there is no price.
export function priceOn(node) {
  const variations = Number(widgetOf(node)?.value ?? 1);
  const each = eachOf(node);
  if (!(each >= 0)) return CHOSEN.has(node.comfyClass) ? "price not known" : "";
  const linked = node.inputs?.some((input) => input.name === "variations" && input.link != null);
  if (linked) return `${dollars(each)} each`;
  const pictures = picturesInto(node, "image");
  const sum = dollars(each * variations * (pictures ?? 1));
  return pictures === undefined ? `${sum} a picture` : sum;
}

app.registerExtension({
  name: "KontextBridge.Price",
  nodeCreated(node) {
    if (!isPaid(node)) return;
    ask();
    node.badges.push(() => new window.LGraphBadge({ text: priceOn(node), ...COLOURS }));
  },
});
