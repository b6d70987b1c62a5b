// What a node says of itself: before a run what it refuses, meanwhile how far it is, at the end what became of it.
import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";
import { allNodes, followRuns, nodeOf, openWorkflow, remember, workflowOf } from "./graphs.js";
import { addLine, colourLine, setLine } from "./line.js";
import { followRefusals } from "./refused.js";

const SPEAK = new Set([
  "KontextEdit",
  "KontextSubmit",
  "KontextEditFolder",
  "OxenEdit",
  "OxenSubmit",
  "KontextCollect",
  "KontextLoadFP8",
  "KontextSample",
  "KontextEditLocal",
  "KontextFast",
]);
const UNCHANGED = "unchanged, not run again";

// By workflow what its nodes said last, so that it is there again when one comes back to it.
const said = new Map();

// By run what was refused of it, which its own beginning may come after.
const refusals = new Map();

const speaks = (node) => SPEAK.has(node?.comfyClass);

function say(workflow, id, text) {
  if (!said.has(workflow)) said.set(workflow, new Map());
  said.get(workflow).set(String(id), text);
  if (workflow !== openWorkflow()) return;
  const node = nodeOf(id);
  if (speaks(node)) setLine(node, text);
}

// Its node failed: what is said there is what to do now.
function fail(workflow, id) {
  if (workflow !== openWorkflow()) return;
  const node = nodeOf(id);
  if (speaks(node)) colourLine(node, true);
}

function refuse(workflow, id, text) {
  say(workflow, id, text);
  fail(workflow, id);
}

function noteRefusal(run, id, text) {
  remember(refusals, run, (refusals.get(run) ?? new Map()).set(id, text));
}

// A run begins: what was said of an earlier one is not of this one.
function forget(workflow, run) {
  said.delete(workflow);
  if (workflow === openWorkflow()) {
    for (const [, node] of allNodes()) if (speaks(node)) setLine(node, "");
  }
  for (const [id, text] of refusals.get(run) ?? []) refuse(workflow, id, text);
}

app.registerExtension({
  name: "KontextBridge.Says",
  setup() {
    followRuns();
    // ComfyUI has words for it in a list that must be opened; in the classic renderer the node has a frame and no more
    followRefusals(SPEAK, (workflow, id, text, run) => {
      refuse(workflow ?? openWorkflow(), id, text);
      if (run) noteRefusal(run, id, text);
    });
    api.addEventListener("kontext_bridge.says", ({ detail }) => say(workflowOf(detail.prompt_id), detail.node, detail.text));
    api.addEventListener("execution_error", ({ detail }) => fail(workflowOf(detail.prompt_id), detail.node_id));
    api.addEventListener("execution_start", ({ detail }) => forget(workflowOf(detail.prompt_id), detail.prompt_id));
    api.addEventListener("execution_cached", ({ detail }) => {
      for (const id of detail.nodes ?? []) say(workflowOf(detail.prompt_id), id, UNCHANGED);
    });
  },
  nodeCreated(node) {
    if (speaks(node)) addLine(node);
  },
  afterConfigureGraph() {
    const texts = said.get(openWorkflow());
    for (const [id, node] of allNodes()) if (speaks(node) && texts?.has(id)) setLine(node, texts.get(id));
  },
});
