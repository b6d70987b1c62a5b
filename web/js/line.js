// The one line of text on a node: a widget of our own, since ComfyUI's progress text takes half of the node and is
// taken away when the run ends (front end 1.58).
const NAME = "kontext_bridge_line";
const HEIGHT = 38;

const QUIET = "var(--descrip-text, #999)";
const LOUD = "var(--error-text, #ff4444)";

const STYLE = {
  fontSize: "12px",
  lineHeight: "15px",
  maxHeight: "30px",
  padding: "0 8px",
  overflow: "hidden",
  overflowWrap: "anywhere",
  display: "-webkit-box",
  webkitLineClamp: "2",
  webkitBoxOrient: "vertical",
  color: QUIET,
  userSelect: "text",
};

const lineOf = (node) => node.widgets?.find((widget) => widget.name === NAME);

// Give a node its line, which has its place from the start, so that nothing moves when it begins to speak.
export function addLine(node) {
  if (lineOf(node)) return;
  const element = document.createElement("div");
  Object.assign(element.style, STYLE);
  const widget = node.addDOMWidget(NAME, "kontext_bridge_line", element, {
    serialize: false,
    hideOnZoom: true,
    margin: 4,
    getMinHeight: () => HEIGHT,
    getMaxHeight: () => HEIGHT,
    getValue: () => element.textContent,
    setValue: (text) => {
      element.textContent = text ?? "";
      element.title = text ?? "";
    },
  });
  // Neither saved with the workflow nor sent with the prompt: widget values are kept by position.
  widget.serialize = false;
}

export function setLine(node, text) {
  const widget = lineOf(node);
  if (!widget) return;
  widget.value = text;
  colourLine(node, false);
  node.setDirtyCanvas?.(true, true);
}

// Whether its line tells of an error. The next text is none again.
export function colourLine(node, wrong) {
  const widget = lineOf(node);
  if (widget) widget.element.style.color = wrong ? LOUD : QUIET;
}
