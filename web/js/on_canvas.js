// What the panel puts on the canvas: a picture as LoadImage, an edit of it, a prompt, a graph.
import { app } from "../../../scripts/app.js";
import { graphOf, bringToInput } from "./edit_server.js";

const WITH_PROMPT = ["KontextEdit", "KontextSubmit", "KontextEditLocal"];
const BESIDE = 60;
const TRIES = 20;

const canvasElement = () => app.canvas.canvas;
const openGraph = () => app.canvas.graph ?? app.graph;

// Where something new is seen, as a place in the graph.
export function middleOfSight() {
  const box = canvasElement().getBoundingClientRect();
  return placeOf(box.left + box.width / 2, box.top + box.height / 3);
}

// The place in the graph under a point of the window.
export function placeOf(x, y) {
  const box = canvasElement().getBoundingClientRect();
  const { scale, offset } = app.canvas.ds;
  return [(x - box.left) / scale - offset[0], (y - box.top) / scale - offset[1]];
}

export function addNode(type, [x, y]) {
  const node = window.LiteGraph.createNode(type);
  if (!node) throw new Error(`ComfyUI has no node ${type}.`);
  node.pos = [Math.round(x), Math.round(y)];
  openGraph().add(node);
  return node;
}

export const widgetOf = (node, name) => node.widgets?.find((one) => one.name === name);

export function setWidget(node, name, value) {
  const widget = widgetOf(node, name);
  if (!widget) return;
  const values = widget.options?.values;
  if (Array.isArray(values) && !values.includes(value)) values.push(value);
  widget.value = value;
  widget.callback?.(value, app.canvas, node);
  node.setDirtyCanvas?.(true, true);
}

// An edit's picture as a LoadImage at a place of the graph.
export async function addPicture(id, place = middleOfSight()) {
  const name = await bringToInput(id);
  const node = addNode("LoadImage", place);
  setWidget(node, "image", name);
  select(node);
  return node;
}

// A Kontext Edit to the right of a node, wired to one of its outputs, with its prompt focused.
export function addEditOf(node, slot = 0) {
  const edit = addNode("KontextEdit", [node.pos[0] + node.size[0] + BESIDE, node.pos[1]]);
  node.connect(slot, edit, edit.inputs.findIndex((input) => input.name === "image"));
  select(edit);
  focusPrompt(edit);
  return edit;
}

// The node that a prompt is meant for: the one selected, or the only one there is; undefined where that is not clear.
export function nodeForPrompt() {
  const fits = (node) => WITH_PROMPT.includes(node?.comfyClass);
  const chosen = Object.values(app.canvas.selected_nodes ?? {}).filter(fits);
  if (chosen.length === 1) return chosen[0];
  const all = openGraph().nodes.filter(fits);
  return all.length === 1 ? all[0] : undefined;
}

// Write a prompt into a node, a new one where none is meant; gives the node and whether it is new.
export function usePrompt(prompt) {
  const found = nodeForPrompt();
  const node = found ?? addNode("KontextEdit", middleOfSight());
  setWidget(node, "prompt", prompt);
  select(node);
  focusPrompt(node);
  return { node, isNew: !found };
}

// Open the graph that an edit was made in, as a workflow of its own, at the node that made it.
export async function revealGraph(id, name) {
  const { graph, node: number } = await graphOf(id);
  await app.loadGraphData(graph, true, true, name);
  const node = nodeAt(number);
  if (node) {
    app.canvas.centerOnNode?.(node);
    select(node);
  }
}

// In subgraphs the outermost: it is what can be seen.
function nodeAt(number) {
  const first = String(number ?? "").split(":")[0];
  return app.graph.getNodeById(first) ?? app.graph.getNodeById(Number(first));
}

function select(node) {
  app.canvas.selectNode?.(node);
  app.canvas.setDirty?.(true, true);
}

// Its box appears with the next drawing, in either renderer at its own time.
export function focusPrompt(node, tries = TRIES) {
  const box = window.LiteGraph.vueNodesMode
    ? document.querySelector(`[data-node-id="${node.id}"] textarea`)
    : widgetOf(node, "prompt")?.element;
  if (box?.isConnected && box.offsetParent !== null) box.focus();
  if (tries && (!box || document.activeElement !== box)) setTimeout(() => focusPrompt(node, tries - 1), 100);
}
