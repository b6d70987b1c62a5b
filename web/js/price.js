// The price on a node before Run, where the pack knows it: of its variations, and of its pictures where they can be counted.
import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";
import { picturesInto } from "./pictures.js";

const PAID = { KontextEdit: "flux-kontext-dev", KontextSubmit: "flux-kontext-dev" };
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
      app.canvas?.setDirty?.(true, true);
    })
    .catch(() => {});
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
    const badge = new window.LGraphBadge({ text: "", ...COLOURS });
    node.badges.push(() => {
      badge.text = priceOn(node);
      return badge;
    });
  },
});
