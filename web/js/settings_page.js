// Settings > Kontext Bridge. ComfyUI keeps what is given to a setting's `setter`; it is never called here, so that
// neither the key nor a limit reaches ComfyUI's own settings.
import { app } from "../../../scripts/app.js";
import { keyPanel } from "./key_panel.js";
import { limitsPanel } from "./limits_panel.js";

app.registerExtension({
  name: "KontextBridge.Settings",
  settings: [
    {
      id: "KontextBridge.Key",
      name: "Key",
      category: ["Kontext Bridge", "Oxen.ai", "Key"],
      type: () => keyPanel(),
      defaultValue: null,
      sortOrder: 20,
    },
    {
      id: "KontextBridge.Limits",
      name: "For every run",
      category: ["Kontext Bridge", "Limits", "Limits"],
      type: () => limitsPanel(),
      defaultValue: null,
      sortOrder: 10,
    },
  ],
});
