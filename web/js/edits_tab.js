// The sidebar tab *Edits*.
import { app } from "../../../scripts/app.js";
import { takeDrops } from "./drag_edit.js";
import { tell } from "./edit_detail.js";
import { editsPanel, prepare } from "./edits_panel.js";
import { element, line } from "./elements.js";
import { texts } from "./texts.js";

const STYLE = {
  display: "flex",
  flexDirection: "column",
  gap: "0.7rem",
  boxSizing: "border-box",
  height: "100%",
  padding: "0.75rem",
  color: "var(--input-text)",
  background: "var(--comfy-menu-bg)",
  fontSize: "14px",
};

// After the page was loaded: nobody is to wait for the panel's list, nor for anything else on account of it.
const PREPARE_MS = 1500;

let end = () => {};

function close() {
  end();
  end = () => {};
}

function open(place) {
  close();
  const root = element("div", { style: STYLE });
  root.dataset.kontextEdits = "";
  // ComfyUI's shortcuts are not for what is typed here.
  for (const name of ["keydown", "keyup", "paste", "copy", "cut"]) {
    root.addEventListener(name, (event) => event.target.matches("input") && event.stopPropagation());
  }
  place.style.height = "100%";
  place.replaceChildren(root);
  let closed = false;
  end = () => (closed = true);
  texts().then(
    (text) => {
      if (!closed) end = editsPanel(root, text);
    },
    (error) => root.append(line(error.message)),
  );
}

function register(title, tooltip) {
  app.extensionManager.registerSidebarTab({
    id: "kontext-bridge-edits",
    icon: "pi pi-images",
    title,
    tooltip,
    type: "custom",
    render: open,
    destroy: close,
  });
}

app.registerExtension({
  name: "KontextBridge.Edits",
  async setup() {
    takeDrops(tell);
    setTimeout(() => prepare().catch(() => {}), PREPARE_MS);
    texts().then(
      (text) => register(text("editsTitle"), text("editsTooltip")),
      () => register("Edits", "Kontext Bridge: edits"),
    );
  },
});
