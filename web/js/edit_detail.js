// One edit, large: before and after, what was asked for, what it cost, and what can be done with it.
import { app } from "../../../scripts/app.js";
import { button, element, enable, line, saying } from "./elements.js";
import { compareSlider } from "./compare_slider.js";
import { oneEdit, pictureOf } from "./edit_server.js";
import { dayOf, dollarsOf, secondsOf } from "./edit_words.js";
import { addEditOf, addPicture, revealGraph, usePrompt } from "./on_canvas.js";

export function editDetail(text, id, back) {
  const root = element("div", {
    style: { display: "flex", flexDirection: "column", gap: "0.6rem", flex: "1", minHeight: "0", overflowY: "auto" },
  });
  root.dataset.detail = id;
  const leave = button(text("editsBack"), back);
  leave.style.alignSelf = "flex-start";
  root.append(leave);
  root.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    event.stopPropagation();
    back();
  });
  oneEdit(id).then(
    (edit) => build(root, text, edit),
    (error) => root.append(line(error.message)),
  );
  requestAnimationFrame(() => leave.focus());
  return root;
}

function build(root, text, edit) {
  const [status, say] = saying();
  const after = pictureOf(edit.id, edit.picture ? "picture" : "thumb");
  const before = edit.before ? pictureOf(edit.id, "before") : undefined;
  const picture = compareSlider({ before, after, label: text("editsSlider") });
  const prompt = element("div", { textContent: edit.prompt ?? "", style: { overflowWrap: "anywhere", userSelect: "text" } });

  const doing = (control, work) => async () => {
    enable(control, false);
    try {
      say((await work()) ?? "");
    } catch (error) {
      say(error.message, true);
    }
    enable(control, true);
  };
  const action = (label, on, why, work) => {
    const made = button(label);
    Object.assign(made.style, { padding: "0.3rem 0.6rem", fontSize: "13px" });
    made.onclick = doing(made, work);
    enable(made, on);
    if (!on) made.title = why;
    return made;
  };
  const gone = text("editsGone");
  const place = action(text("editsPlace"), edit.picture, gone, async () => {
    await addPicture(edit.id);
    return text("editsPlaced");
  });
  const again = action(text("editsAgain"), edit.picture, gone, async () => {
    addEditOf(await addPicture(edit.id));
    return text("editsAgainDone");
  });
  const use = action(text("editsUsePrompt"), Boolean(edit.prompt), text("editsNoPrompt"), () =>
    usePrompt(edit.prompt).isNew ? text("editsPromptNew") : text("editsPromptSet"),
  );
  const reveal = action(text("editsReveal"), edit.graph, text("editsNoGraph"), async () => {
    await revealGraph(edit.id, text("editsGraphName", { id: edit.id }));
    return text("editsRevealed");
  });
  const actions = element("div", { style: { display: "flex", flexWrap: "wrap", gap: "0.4rem" } });
  actions.append(use, again, place, reveal);
  root.append(picture, prompt, actions, status, factsOf(text, edit));
  if (!edit.picture) root.append(line(gone));
  else if (!edit.before) root.append(line(text("editsNoBefore")));
}

function factsOf(text, edit) {
  const asked = edit.parameters;
  const facts = [
    [text("editsSeed"), edit.seed],
    [text("editsModel"), edit.place === "local" ? text("editsLocalModel") : edit.model],
    [text("editsCost"), costOf(text, edit)],
    [text("editsSeconds"), edit.seconds === null ? null : secondsOf(edit.seconds)],
    [text("editsSteps"), asked.num_inference_steps ?? asked.steps],
    [text("editsGuidance"), asked.guidance],
    [text("editsMade"), dayOf(edit.made_at)],
    [text("editsId"), edit.generation_id],
  ];
  const root = element("dl", {
    style: { display: "grid", gridTemplateColumns: "auto 1fr", gap: "0.15rem 0.8rem", margin: "0", fontSize: "12px" },
  });
  for (const [name, value] of facts) {
    if (value === null || value === undefined) continue;
    const style = { margin: "0", overflowWrap: "anywhere", userSelect: "text" };
    root.append(
      element("dt", { textContent: name, style: { color: "var(--descrip-text)" } }),
      element("dd", { textContent: String(value), style }),
    );
  }
  return root;
}

function costOf(text, edit) {
  if (edit.place === "local") return text("editsNothing");
  if (edit.cost !== null) return dollarsOf(edit.cost);
  return edit.price === null ? text("editsUnknown") : text("editsAbout", { price: dollarsOf(edit.price) });
}

export function tell(error) {
  app.extensionManager.toast.add({ severity: "error", summary: "Kontext Bridge", detail: error.message, life: 8000 });
}
