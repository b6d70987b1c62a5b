// Shows on the node what its run says: ComfyUI keeps that text, and draws it on "Preview as Text" alone.
import { app } from "../../../scripts/app.js";

const CATEGORY = "Kontext Bridge";
const NAME = "text";
const WIDE = 400;
const WIDEST = 640;
// Of the widget's font, and what stands beside its lines.
const CHARACTER = 6.6;
const BESIDE = 50;
const LINE = 14;
const ABOVE_AND_BELOW = 34;
const LINES = 8;
// What these say stands in columns.
const LISTS = new Set(["KontextSubmit", "KontextQueueStatus", "KontextCancel", "KontextHistory", "KontextModelInfo"]);

// As wide as the longest line, so that none is broken.
function widthFor(text) {
  const longest = Math.max(...text.split("\n").map((line) => line.length));
  return Math.min(Math.max(WIDE, longest * CHARACTER + BESIDE), WIDEST);
}

// As high as its lines, broken where the node ends: a sentence takes the room of a sentence.
function heightFor(text, width) {
  const broken = text.split("\n").map((line) => Math.max(1, Math.ceil((line.length * CHARACTER) / (width - BESIDE))));
  return Math.min(broken.reduce((sum, one) => sum + one, 0), LINES) * LINE + ABOVE_AND_BELOW;
}

function show(node, text) {
  let widget = node.widgets?.find((one) => one.name === NAME);
  if (!widget) {
    widget = app.widgets.STRING(node, NAME, ["STRING", { multiline: true }], app).widget;
    // A space, since the name takes the place of an empty label.
    widget.label = " ";
    // Neither saved with the workflow nor sent with the prompt: widget values are kept by position.
    widget.serialize = false;
    widget.options.serialize = false;
    widget.options.read_only = true;
    if (widget.element) widget.element.readOnly = true;
  }
  widget.value = text;
  if (LISTS.has(node.comfyClass)) {
    node.setSize([Math.max(node.size[0], widthFor(text)), node.size[1]]);
  } else {
    widget.options.getMinHeight = widget.options.getMaxHeight = () => heightFor(widget.value, node.size[0]);
  }
  const [width, height] = node.computeSize();
  node.setSize([Math.max(node.size[0], width), Math.max(node.size[1], height)]);
  node.setDirtyCanvas?.(true, true);
}

app.registerExtension({
  name: "KontextBridge.ShowText",
  beforeRegisterNodeDef(nodeType, nodeData) {
    if (nodeData.category?.split("/")[0] !== CATEGORY) return;
    const before = nodeType.prototype.onExecuted;
    nodeType.prototype.onExecuted = function (message) {
      before?.apply(this, arguments);
      if (message?.text?.length) show(this, message.text.join("\n"));
    };
  },
});
