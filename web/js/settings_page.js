// Settings > Kontext Bridge. ComfyUI keeps what is given to a setting's `setter`; it is never called here, so that
// neither the key nor a limit reaches ComfyUI's own settings.
import { app } from "../../../scripts/app.js";
import { line, page } from "./elements.js";
import { keyPanel } from "./key_panel.js";
import { limitsPanel } from "./limits_panel.js";
import { texts } from "./texts.js";

// A page at once, its panel as soon as the words for it are there.
function pageWith(panel) {
  const root = page();
  texts().then(
    (text) => panel(root, text),
    (error) => root.append(line(String(error.message ?? error))),
  );
  return root;
}

app.registerExtension({
  name: "KontextBridge.Settings",
  settings: [
    {
      id: "KontextBridge.Key",
      name: "Key",
      category: ["Kontext Bridge", "Oxen.ai", "Key"],
      type: () => pageWith(keyPanel),
      defaultValue: null,
      sortOrder: 20,
    },
    {
      id: "KontextBridge.Limits",
      name: "For every run",
      category: ["Kontext Bridge", "Limits", "Limits"],
      type: () => pageWith(limitsPanel),
      defaultValue: null,
      sortOrder: 10,
    },
  ],
});
