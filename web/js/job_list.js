// The jobs that run, each with Cancel, and those that nobody waits for, each with Collect.
import { button, element, enable, line, row } from "./elements.js";
import { cancelJob, collectJob, pictureOf } from "./edit_server.js";
import { secondsOf } from "./edit_words.js";

const SIDE = "44px";
const ONE_LINE = { overflow: "hidden", textOverflow: "ellipsis", whiteSpace: "nowrap" };

// changed() is called when a job was cancelled or collected, so that the lists are asked for anew.
export function jobList(text, changed) {
  const runningTitle = title();
  const running = column();
  const owedTitle = title();
  const owed = column();
  const root = element("div", { style: { display: "none", flexDirection: "column", gap: "0.4rem" } });
  root.append(runningTitle, running, owedTitle, owed);
  Object.assign(root.style, { maxHeight: "45%", overflowY: "auto", flex: "none" });
  const rows = new Map();

  const rowOf = (job, kind) => {
    const key = `${kind}/${job.id}`;
    if (!rows.has(key)) rows.set(key, jobRow(text, job, kind, changed));
    const made = rows.get(key);
    made.update(job);
    return [key, made.root];
  };

  function list(into, jobs, kind) {
    const made = jobs.map((job) => rowOf(job, kind));
    const elements = made.map(([, one]) => one);
    if (elements.length !== into.children.length || elements.some((one, at) => one !== into.children[at])) {
      into.replaceChildren(...elements);
    }
    return made.map(([key]) => key);
  }

  return {
    root,
    show(now) {
      count(runningTitle, now.running.length, (count) => text("editsRunning", { count }));
      count(owedTitle, now.owed.length, (count) => text("editsOwed", { count }));
      const there = new Set([...list(running, now.running, "running"), ...list(owed, now.owed, "owed")]);
      for (const key of rows.keys()) if (!there.has(key)) rows.delete(key);
      root.style.display = there.size ? "flex" : "none";
    },
  };
}

function count(title, number, words) {
  title.hidden = !number;
  title.textContent = number ? words(number) : "";
}

function column() {
  return element("div", { style: { display: "flex", flexDirection: "column", gap: "0.4rem" } });
}

function title() {
  return element("div", { style: { fontSize: "12px", color: "var(--descrip-text)", fontWeight: "600" } });
}

function jobRow(text, job, kind, changed) {
  const picture = element("img", { alt: "", decoding: "async" });
  Object.assign(picture.style, {
    width: SIDE,
    height: SIDE,
    flex: "none",
    objectFit: "cover",
    borderRadius: "0.3rem",
    background: "var(--comfy-input-bg)",
  });
  picture.addEventListener("error", () => picture.removeAttribute("src"));
  const prompt = element("div", { style: ONE_LINE });
  const state = line();
  state.style.fontSize = "12px";
  const words = element("div", { style: { flex: "1", minWidth: "0" } }, prompt, state);
  let said = "";
  const doing = (control, meanwhile, work) => async () => {
    enable(control, false);
    said = meanwhile;
    state.textContent = said;
    try {
      const answer = await work(job.id);
      said = answer.cancelled === false ? answer.text : "";
    } catch (error) {
      said = error.message;
    }
    enable(control, true);
    changed();
  };
  const cancel = button(text("editsCancel"));
  cancel.onclick = doing(cancel, text("editsCancelling"), cancelJob);
  const collect = button(text("editsCollect"));
  collect.onclick = doing(collect, text("editsCollecting"), collectJob);
  for (const one of [cancel, collect]) Object.assign(one.style, { padding: "0.25rem 0.6rem", fontSize: "12px" });
  const root = row(picture, words, ...(kind === "owed" ? [collect] : [cancel]));
  root.dataset.job = job.id;
  return {
    root,
    update(now) {
      prompt.textContent = now.prompt;
      prompt.title = now.prompt;
      state.textContent = said || stateOf(text, now, kind);
      state.title = state.textContent;
      cancel.hidden = !now.cancel;
      const kindOfPicture = now.picture ? "thumb" : now.before ? "before" : undefined;
      const source = kindOfPicture && pictureOf(now.id, kindOfPicture);
      if (source && picture.dataset.source !== source) {
        picture.dataset.source = source;
        picture.src = source;
      }
    },
  };
}

function stateOf(text, job, kind) {
  const time = secondsOf(job.seconds);
  if (kind === "running") return text(job.state === "sending" ? "editsSending" : "editsThere", { time });
  if (job.state === "done") return text("editsCame", { time });
  return text(job.state === "sending" ? "editsCutOff" : "editsLeft", { time });
}
