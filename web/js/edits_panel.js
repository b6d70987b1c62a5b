// The panel: what was spent, what runs and what is owed, and a grid of all that was made.
import { element, field, line } from "./elements.js";
import { canBeDragged } from "./drag_edit.js";
import { editDetail } from "./edit_detail.js";
import { allEdits, editsNow, oneEdit, pictureOf } from "./edit_server.js";
import { dollarsOf } from "./edit_words.js";
import { jobList } from "./job_list.js";
import { virtualGrid } from "./virtual_grid.js";

const LOOK_MS = 1000;
const TYPED_MS = 200;
// What was shown last, so that the panel opens with it.
let last = { ids: [], stamp: undefined };

// Ask for what the panel opens with, before it is opened.
export async function prepare() {
  const { ids } = await allEdits("");
  if (!last.ids.length) last = { ids, stamp: undefined };
}

export function editsPanel(root, text) {
  const spent = line();
  const bar = element("div", { style: { height: "100%", width: "0" } });
  const track = element("div", { style: { height: "4px", borderRadius: "2px", overflow: "hidden" } }, bar);
  track.style.background = "var(--comfy-input-bg)";
  const jobs = jobList(text, () => look());
  const search = field({ type: "search", placeholder: text("editsSearch"), ariaLabel: text("editsSearch") });
  search.style.flex = "none";
  const says = line();
  const grid = virtualGrid({ make: () => tile(text, open), fill, load });
  const list = element("div", { style: { display: "flex", flexDirection: "column", gap: "0.6rem", flex: "1", minHeight: "0" } });
  list.append(search, says, grid.root);
  const title = element("div", { textContent: text("editsTitle"), style: { fontWeight: "600", flex: "1" } });
  const head = element("div", { style: { display: "flex", gap: "0.5rem", alignItems: "baseline", paddingBottom: "0.3rem" } });
  head.append(title, spent);
  root.append(element("div", {}, head, track), jobs.root, list);
  let searched = "";
  let timer;
  let typing;
  let ended = false;

  function open(id) {
    const top = grid.root.scrollTop;
    const detail = editDetail(text, id, () => {
      detail.replaceWith(list);
      grid.root.scrollTop = top;
      grid.root.querySelector(`[data-edit="${id}"]`)?.focus({ preventScroll: true });
    });
    list.replaceWith(detail);
  }

  function showSpent(now) {
    const amounts = { spent: dollarsOf(now.spent), limit: now.limit === null ? "" : dollarsOf(now.limit) };
    spent.textContent = now.limit === null ? text("editsSpent", amounts) : text("editsSpentOf", amounts);
    track.hidden = now.limit === null;
    const share = now.limit === null ? 0 : Number(now.limit) > 0 ? Number(now.spent) / Number(now.limit) : 1;
    bar.style.width = `${Math.min(100, share * 100)}%`;
    bar.style.background = share < 1 ? "var(--p-primary-color, #2563eb)" : "var(--error-text)";
  }

  function showIds(ids) {
    grid.show(ids);
    says.hidden = ids.length > 0;
    says.textContent = ids.length ? "" : searched ? text("editsNoneFound") : text("editsNone");
  }

  async function listAnew(stamp) {
    const asked = searched;
    const { ids } = await allEdits(asked);
    if (ended || asked !== searched) return;
    if (!asked) last = { ids, stamp };
    seen = stamp;
    showIds(ids);
  }

  let seen = last.stamp;
  async function look() {
    clearTimeout(timer);
    if (!document.hidden) {
      try {
        const now = await editsNow();
        if (ended) return;
        showSpent(now);
        jobs.show(now);
        if (now.stamp !== seen) await listAnew(now.stamp);
      } catch (error) {
        says.hidden = false;
        says.textContent = error instanceof TypeError ? text("editsNoAnswer") : error.message;
        seen = undefined;
      }
    }
    clearTimeout(timer);
    if (!ended) timer = setTimeout(look, LOOK_MS);
  }

  search.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => {
      searched = search.value.trim();
      grid.root.scrollTop = 0;
      listAnew(seen).catch((error) => Object.assign(says, { hidden: false, textContent: error.message }));
    }, TYPED_MS);
  });
  const awake = () => document.hidden || look();
  document.addEventListener("visibilitychange", awake);
  if (last.ids.length) showIds(last.ids);
  look();
  return () => {
    ended = true;
    clearTimeout(timer);
    clearTimeout(typing);
    document.removeEventListener("visibilitychange", awake);
    grid.end();
  };
}

// Nothing is cut off and nothing is round: each such tile would be a layer to sort in every frame of a scroll.
function tile(text, open) {
  const style = {
    boxSizing: "border-box",
    border: "1px solid var(--border-color)",
    background: "var(--comfy-input-bg)",
    cursor: "pointer",
  };
  const picture = element("img", { alt: "", draggable: false, decoding: "async" });
  Object.assign(picture.style, { width: "100%", height: "100%", objectFit: "cover", display: "block", visibility: "hidden" });
  const here = element("span", { textContent: text("editsHere") });
  Object.assign(here.style, {
    position: "absolute",
    left: "3px",
    bottom: "3px",
    padding: "0 4px",
    borderRadius: "3px",
    fontSize: "10px",
    color: "#fff",
    background: "rgb(0 0 0 / 60%)",
  });
  // no button: Firefox lets none be dragged
  const made = element("div", { style, tabIndex: 0, onclick: () => open(made.dataset.edit) }, picture, here);
  made.setAttribute("role", "button");
  made.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    event.stopPropagation();
    open(made.dataset.edit);
  });
  // what it is is asked for when it is pointed at
  made.addEventListener("pointerenter", () => {
    const id = made.dataset.edit;
    if (!made.title) oneEdit(id).then((edit) => made.dataset.edit === id && (made.title = edit.prompt ?? ""), () => {});
  });
  canBeDragged(made, () => made.dataset.edit);
  return made;
}

function fill(made, id) {
  made.dataset.edit = id;
  made.ariaLabel = id;
  if (made.title) made.title = "";
  // Out of sight, not away: a picture without an address, and what is not drawn, are laid out anew.
  made.lastChild.style.visibility = id.startsWith("l") ? "" : "hidden";
  made.firstChild.style.visibility = "hidden";
}

function load(made, id) {
  const picture = made.firstChild;
  return new Promise((end) => {
    picture.onerror = end;
    picture.onload = () => {
      if (made.dataset.edit === id) picture.style.visibility = "";
      end();
    };
    picture.src = pictureOf(id, "thumb");
  });
}
