// A number is shown, and taken, as finely as its node reads it: the front end goes by the step of its arrows alone, and
// makes of the 0.016 that Kontext Prepare asks for "0.0", and 0.01 when it is typed (1.49).
import { app } from "../../../scripts/app.js";

const CATEGORY = "Kontext Bridge";

// Digits after the point of 0.001 are three.
const digits = (round) => Math.max(0, -Math.floor(Math.log10(round)));

app.registerExtension({
  name: "KontextBridge.Finer",
  nodeCreated(node) {
    if (node.constructor.nodeData?.category?.split("/")[0] !== CATEGORY) return;
    for (const { options } of node.widgets ?? []) {
      if (options?.round > 0 && digits(options.round) > (options.precision ?? 0)) options.precision = digits(options.round);
    }
  },
});
