// *Edit with Kontext* on the toolbox of a selected picture node: adds a Kontext Edit, wires it, and waits for a prompt.
import { app } from "../../../scripts/app.js";
import { tell } from "./edit_detail.js";
import { addEditOf } from "./on_canvas.js";

const COMMAND = "KontextBridge.EditWithKontext";
// By which input a node that only shows a picture has it from another; LoadImage gives its own.
const SHOWS = { PreviewImage: "images", SaveImage: "images" };

function isPicture(node) {
  return node?.comfyClass === "LoadImage" || node?.comfyClass in SHOWS;
}

// The node and output that the picture of a node comes from.
export function giverOf(node) {
  if (node.comfyClass === "LoadImage") return { node, slot: 0 };
  const at = node.inputs.findIndex((input) => input.name === SHOWS[node.comfyClass]);
  const link = node.inputs[at]?.link;
  const from = link == null ? undefined : node.graph.getLink(link);
  const giver = from && node.graph.getNodeById(from.origin_id);
  if (!giver) throw new Error("Nothing is connected to this node, so there is no picture to edit yet.");
  return { node: giver, slot: from.origin_slot };
}

export function editWithKontext(node) {
  const giver = giverOf(node);
  const edit = addEditOf(giver.node, giver.slot);
  edit.pos = [node.pos[0] + node.size[0] + 60, node.pos[1]];
  return edit;
}

app.registerExtension({
  name: "KontextBridge.EditWithKontext",
  commands: [
    {
      id: COMMAND,
      icon: "pi pi-pencil",
      label: "Edit with Kontext",
      function: () => {
        const node = Object.values(app.canvas.selected_nodes ?? {}).find(isPicture);
        try {
          if (node) editWithKontext(node);
        } catch (error) {
          tell(error);
        }
      },
    },
  ],
  getSelectionToolboxCommands: (item) => (isPicture(item) ? [COMMAND] : []),
});
