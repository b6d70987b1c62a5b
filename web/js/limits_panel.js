// Spend limits, and how many edits go at once; they are kept on the server, not among ComfyUI's own settings.
import { ask } from "./asking.js";
import { button, element, enable, field, row, saying } from "./elements.js";

const FIELDS = {
  usd_per_run: { min: "0", step: "any" },
  usd_per_day: { min: "0", step: "any" },
  max_in_flight: { min: "1", max: "8", step: "1" },
};

export function limitsPanel(root, text) {
  const [status, say] = saying();
  const inputs = {};
  for (const [name, range] of Object.entries(FIELDS)) {
    const label = text(`label_${name}`);
    inputs[name] = field({ type: "number", ariaLabel: label, ...range });
    inputs[name].dataset.setting = name;
    root.append(row(element("label", { textContent: label, style: { flex: "2" } }), inputs[name]));
  }
  let state = {};

  const show = (now) => {
    state = now;
    for (const [name, input] of Object.entries(inputs)) {
      const { value, default: usual, variable } = now[name];
      input.value = value === usual && !variable ? "" : (value ?? "");
      input.placeholder = usual === null ? text("noLimit") : text("usually", { value: usual });
      input.title = variable ? text("decidedBy", { variable }) : "";
      enable(input, !variable);
    }
    const pinned = Object.values(now).map((one) => one.variable).filter(Boolean);
    if (pinned.length) say(text("decidedBy", { variable: pinned.join(", ") }));
    enable(save, pinned.length < Object.keys(inputs).length);
  };

  const save = button(text("save"), async () => {
    enable(save, false);
    try {
      const changes = {};
      for (const [name, input] of Object.entries(inputs)) {
        if (state[name].variable) continue;
        if (!input.validity.valid) throw new Error(text("wrongNumber", { label: text(`label_${name}`) }));
        changes[name] = input.value === "" ? null : input.value;
      }
      show(await ask("POST", "limits", changes));
      say(text("limitsSaved"));
    } catch (error) {
      say(error.message, true);
      enable(save, true);
    }
  });
  enable(save, false);
  root.append(row(save), status);
  ask("GET", "limits").then(show, (error) => say(error.message, true));
}
