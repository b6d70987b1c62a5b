// "Edit with Kontext" on the toolbox of a selected picture: a Kontext Edit and a preview of it, wired, the prompt focused.
import { app } from "../../../scripts/app.js";
import { focusPrompt } from "./on_canvas.js";

const COMMAND = "KontextBridge.EditWithKontext";
const PICTURES = new Set(["LoadImage", "PreviewImage", "SaveImage"]);
const GAP = 60;
const TITLE = 40;
const ROOM_TO_WRITE = 60;
const PREVIEW = [360, 360];

const shows = (item) => PICTURES.has(item?.comfyClass);

// The node and slot that a picture comes from: the node's own output, or what leads into it where it has none.
function source(node) {
  const own = node.outputs?.findIndex((output) => output.type === "IMAGE") ?? -1;
  if (own >= 0) return [node, own];
  const slot = node.inputs?.findIndex((input) => input.name === "images") ?? -1;
  const link = slot < 0 ? null : node.getInputLink?.(slot);
  return link ? [node.graph.getNodeById(link.origin_id), link.origin_slot] : [null, -1];
}

// Right of a node, below what stands there already.
function put(node, before) {
  const left = before.pos[0] + before.size[0] + GAP;
  let top = before.pos[1];
  const inTheWay = (other) =>
    other !== node &&
    other.pos[0] < left + node.size[0] + GAP / 2 &&
    left < other.pos[0] + other.size[0] + GAP / 2 &&
    other.pos[1] - TITLE < top + node.size[1] &&
    top - TITLE < other.pos[1] + other.size[1];
  for (let other; (other = node.graph.nodes.find(inTheWay)); ) top = other.pos[1] + other.size[1] + TITLE + GAP / 2;
  node.pos = [left, top];
}

function edit(node) {
  const { graph } = node;
  const edit = window.LiteGraph.createNode("KontextEdit");
  const preview = window.LiteGraph.createNode("PreviewImage");
  app.canvas.emitBeforeChange?.();
  try {
    graph.add(edit);
    edit.setSize([edit.size[0], edit.size[1] + ROOM_TO_WRITE]);
    put(edit, node);
    graph.add(preview);
    preview.setSize(PREVIEW);
    put(preview, edit);
    const [from, slot] = source(node);
    from?.connect(slot, edit, edit.inputs.findIndex((input) => input.name === "image"));
    edit.connect(0, preview, 0);
  } finally {
    app.canvas.emitAfterChange?.();
  }
  app.canvas.selectItems([edit]);
  app.canvas.centerOnNode(edit);
  focusPrompt(edit);
}

app.registerExtension({
  name: "KontextBridge.EditWithKontext",
  commands: [
    {
      id: COMMAND,
      icon: "pi pi-pencil",
      label: "Edit with Kontext",
      function: () => {
        const node = Object.values(app.canvas.selected_nodes ?? {}).find(shows);
        if (node) edit(node);
      },
    },
  ],
  getSelectionToolboxCommands: (item) => (shows(item) ? [COMMAND] : []),
});
