// Finding a node by the id that a run gives it, and which workflow a run is of.
import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";

const REMEMBERED = 200;
const workflows = new Map();

const root = () => app.rootGraph ?? app.graph;

// The id of the workflow that is open.
export const openWorkflow = () => root()?.id ?? "";

// The workflow that a run was started from; the open one where this page has not started it.
export const workflowOf = (promptId) => workflows.get(promptId) ?? openWorkflow();

// The node of the open workflow by its id in a run, which for one in subgraphs is like "5:3"; undefined without one.
export function nodeOf(id) {
  let graph = root();
  let node;
  for (const part of String(id).split(":")) {
    node = graph?.getNodeById(part) ?? graph?.getNodeById(Number(part));
    graph = node?.subgraph;
  }
  return node ?? undefined;
}

// Every node of the open workflow with its id in a run.
export function* allNodes(graph = root(), before = "") {
  for (const node of graph?.nodes ?? []) {
    yield [`${before}${node.id}`, node];
    if (node.subgraph) yield* allNodes(node.subgraph, `${before}${node.id}:`);
  }
}

// Note something of a run; of very many the oldest is forgotten.
export function remember(runs, promptId, what) {
  runs.set(promptId, what);
  if (runs.size > REMEMBERED) runs.delete(runs.keys().next().value);
}

// Note of every run that this page starts which workflow it is of: another one may be open when it speaks.
export function followRuns() {
  const queuePrompt = api.queuePrompt;
  api.queuePrompt = async function (...given) {
    const reply = await queuePrompt.apply(this, given);
    const workflow = given[1]?.workflow?.id;
    if (reply?.prompt_id && workflow) remember(workflows, reply.prompt_id, workflow);
    return reply;
  };
}
