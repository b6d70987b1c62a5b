// The price on a node before Run, where the pack knows it: of its variations, and of its pictures where they can be counted.
import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";
import { allNodes } from "./graphs.js";
import { picturesInto } from "./pictures.js";

const PAID = { KontextEdit: "flux-kontext-dev", KontextSubmit: "flux-kontext-dev" };
const LOOK_MS = 500;
const COLOURS = { fgColor: "#e8e8e8", bgColor: "#3f4a3c" };

let asked;
let prices = {};

// Asked once, when a node that costs is there; without an answer nothing is said.
function ask() {
  asked ??= api
    .fetchApi("/kontext-bridge/prices")
    .then((reply) => (reply.ok ? reply.json() : {}))
    .then((answer) => {
      prices = answer.usd ?? {};
      setInterval(look, LOOK_MS);
    })
    .catch(() => {});
}

// Nodes 2.0 asks a badge again only when it is told that they changed; the classic renderer asks at each drawing.
function look() {
  if (document.hidden) return;
  for (const [, node] of allNodes()) {
    if (!(node.comfyClass in PAID) || node.kontextPrice === priceOn(node)) continue;
    node.kontextPrice = priceOn(node);
    const before = node.badges;
    node.badges = [...before];
    node.graph?.trigger?.("node:property:changed", {
      type: "node:property:changed",
      nodeId: node.id,
      property: "badges",
      oldValue: before,
      newValue: node.badges,
    });
    node.setDirtyCanvas?.(true, true);
  }
}

export function dollars(amount) {
  const exact = Number(amount.toFixed(4));
  return `$${Number.isInteger(Math.round(exact * 1e4) / 100) ? exact.toFixed(2) : exact}`;
}

// "$0.16", or "$0.16 a picture" where it is not known how many there are; "" where there is no price.
export function priceOn(node) {
  const each = Number(prices[PAID[node.comfyClass]]);
  if (!(each >= 0)) return "";
  const linked = node.inputs?.some((input) => input.name === "variations" && input.link != null);
  if (linked) return `${dollars(each)} each`;
  const variations = Number(node.widgets?.find((widget) => widget.name === "variations")?.value ?? 1);
  const pictures = picturesInto(node, "image");
  const sum = dollars(each * variations * (pictures ?? 1));
  return pictures === undefined ? `${sum} a picture` : sum;
}

app.registerExtension({
  name: "KontextBridge.Price",
  nodeCreated(node) {
    if (!(node.comfyClass in PAID)) return;
    ask();
    node.badges.push(() => new window.LGraphBadge({ text: priceOn(node), ...COLOURS }));
  },
});
