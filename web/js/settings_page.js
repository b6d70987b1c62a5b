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
      name: "Oxen.ai key",
      category: ["Kontext Bridge", "Oxen.ai", "Key"],
      type: () => keyPanel(),
      defaultValue: null,
      sortOrder: 20,
    },
    {
      id: "KontextBridge.Limits",
      name: "Limits",
      category: ["Kontext Bridge", "Oxen.ai", "Limits"],
      type: () => limitsPanel(),
      defaultValue: null,
      sortOrder: 10,
    },
  ],
});
