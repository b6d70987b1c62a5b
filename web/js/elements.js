// The few elements that the pack's pages are made of. Text is only ever set as text, never as HTML.

export function element(name, properties = {}, ...children) {
  const { style, ...rest } = properties;
  const made = Object.assign(document.createElement(name), rest);
  Object.assign(made.style, style);
  made.append(...children);
  return made;
}

export function page(...children) {
  const style = { display: "flex", flexDirection: "column", gap: "0.6rem", width: "36rem", maxWidth: "100%" };
  const made = element("div", { style }, ...children);
  // ComfyUI's shortcuts, and its own pasting of nodes, are not for what is typed here.
  for (const name of ["keydown", "keyup", "paste", "copy", "cut"]) {
    made.addEventListener(name, (event) => event.key !== "Escape" && event.stopPropagation());
  }
  return made;
}

export function row(...children) {
  return element("div", { style: { display: "flex", gap: "0.5rem", alignItems: "center" } }, ...children);
}

export function field(properties) {
  const style = {
    flex: "1",
    minWidth: "0",
    padding: "0.45rem 0.6rem",
    borderRadius: "0.35rem",
    border: "1px solid var(--border-color)",
    background: "var(--comfy-input-bg)",
    color: "var(--input-text)",
  };
  return element("input", { autocomplete: "off", spellcheck: false, ...properties, style });
}

export function button(label, onclick) {
  const style = {
    padding: "0.4rem 0.9rem",
    borderRadius: "0.35rem",
    border: "1px solid var(--border-color)",
    background: "var(--comfy-input-bg)",
    color: "var(--input-text)",
    cursor: "pointer",
  };
  return element("button", { type: "button", textContent: label, onclick, style });
}

export function enable(control, on) {
  control.disabled = !on;
  control.style.opacity = on ? "1" : "0.45";
  control.style.cursor = on ? "" : "not-allowed";
}

export function line(text = "") {
  return element("div", { textContent: text, style: { color: "var(--descrip-text)", overflowWrap: "anywhere" } });
}

// One line that says how the last thing went, read aloud as it changes.
export function saying() {
  const made = line();
  made.setAttribute("role", "status");
  const say = (text, wrong = false) => {
    made.textContent = text;
    made.style.color = wrong ? "var(--error-text)" : "var(--descrip-text)";
  };
  return [made, say];
}
