// A model's seed takes its "control after generate" with it when another model is chosen, which front end 1.49 leaves
// behind: one more at each switch, saved with the workflow.
import { app } from "../../../scripts/app.js";

const CHOSEN = new Set(["OxenEdit", "OxenSubmit"]);
const seen = new WeakSet();

function takeAlong(node, widget) {
  if (!widget?.linkedWidgets?.length || !widget.name.startsWith("model.") || seen.has(widget)) return;
  seen.add(widget);
  const before = widget.onRemove;
  widget.onRemove = function () {
    before?.apply(this, arguments);
    for (const one of widget.linkedWidgets) if (node.widgets.includes(one)) node.removeWidget(one);
  };
}

app.registerExtension({
  name: "KontextBridge.LeftBehind",
  nodeCreated(node) {
    if (!CHOSEN.has(node.comfyClass)) return;
    for (const widget of node.widgets ?? []) takeAlong(node, widget);
    const before = node.onInputAdded;
    node.onInputAdded = function (input) {
      before?.apply(this, arguments);
      takeAlong(node, node.widgets?.find((one) => one.name === input.widget?.name));
    };
  },
});
