// An edit is dragged from the panel onto the canvas.
import { app } from "../../../scripts/app.js";
import { addPicture, placeOf } from "./on_canvas.js";

const KIND = "application/x-kontext-bridge-edit";

export function canBeDragged(element, idOf) {
  element.draggable = true;
  element.addEventListener("dragstart", (event) => {
    event.dataTransfer.clearData();
    event.dataTransfer.setData(KIND, idOf());
    event.dataTransfer.effectAllowed = "copy";
  });
}

const isOurs = (event) => event.dataTransfer?.types.includes(KIND);

// Over the canvas, or over what Nodes 2.0 draws on it.
function isOverCanvas(event) {
  const box = app.canvas.canvas.getBoundingClientRect();
  const over = event.clientX >= box.left && event.clientX < box.right && event.clientY >= box.top && event.clientY < box.bottom;
  return over && !event.target?.closest?.("[data-kontext-edits]");
}

// Before ComfyUI, which takes what is dropped for a workflow.
export function takeDrops(wrong) {
  window.addEventListener(
    "dragover",
    (event) => {
      if (!isOurs(event) || !isOverCanvas(event)) return;
      event.preventDefault();
      event.dataTransfer.dropEffect = "copy";
    },
    true,
  );
  window.addEventListener(
    "drop",
    (event) => {
      if (!isOurs(event) || !isOverCanvas(event)) return;
      event.preventDefault();
      event.stopImmediatePropagation();
      addPicture(event.dataTransfer.getData(KIND), placeOf(event.clientX, event.clientY)).catch(wrong);
    },
    true,
  );
}
