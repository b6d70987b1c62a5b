// The classic renderer folds away, as Nodes 2.0 does, the widgets that few edits need: right-click, Show Advanced.
import { app } from "../../../scripts/app.js";

const BIG = new Set([
  "KontextEdit",
  "KontextSubmit",
  "KontextCollect",
  "KontextEditLocal",
  "KontextEditFolder",
  "OxenEdit",
  "OxenSubmit",
]);

const foldable = (node) => node.widgets?.filter((widget) => widget.options?.advanced) ?? [];

const linked = (node, widget) => node.inputs?.some((input) => input.widget?.name === widget.name && input.link != null);

// The values of a new node.
const standard = new WeakMap();

function foldOne(widget) {
  widget.advanced = true;
  standard.set(widget, widget.value);
  // A file in the API format sets values one by one, and so does a hand: what was set stays in sight.
  const before = widget.callback;
  widget.callback = function (...given) {
    if (widget.value !== standard.get(widget)) widget.advanced = false;
    return before?.apply(this, given);
  };
}

function fold(node) {
  foldable(node).forEach(foldOne);
  // Those of a model that is chosen later come with their inputs.
  const before = node.onInputAdded;
  node.onInputAdded = function (input) {
    before?.apply(this, arguments);
    const widget = foldable(node).find((one) => one.name === input.widget?.name);
    if (widget && !standard.has(widget)) foldOne(widget);
  };
  // front end 1.49 leaves a gap where the folded ones would be
  node.getLayoutWidgets = () =>
    node.widgets?.filter((widget) => !widget.hidden && (node.showAdvanced || !widget.advanced)) ?? [];
  node.setSize([node.size[0], node.computeSize()[1]]);
}

// What a workflow has set or linked is seen when it is opened: four variations are not paid for unseen.
function showUsed(node) {
  for (const widget of foldable(node)) {
    if (linked(node, widget) || widget.value !== standard.get(widget)) widget.advanced = false;
  }
}

app.registerExtension({
  name: "KontextBridge.Advanced",
  nodeCreated(node) {
    if (BIG.has(node.comfyClass)) fold(node);
  },
  loadedGraphNode(node) {
    if (BIG.has(node.comfyClass)) showUsed(node);
  },
});
