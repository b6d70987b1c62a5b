// What a node refuses before a run begins.
import { api } from "../../../scripts/api.js";

const REFUSED = "custom_validation_failed";

const nameOf = (error) => error.extra_info?.input_name ?? "";
const refused = (error) => error.type === REFUSED && !!nameOf(error);
// ComfyUI puts the input's name before what the node said.
const reasonOf = (error) => error.details.replace(`${nameOf(error)} - `, "");
const placeOf = (error) => reasonOf(error).search(new RegExp(`\\b${nameOf(error)}\\b`));

// The same without what is told twice. ComfyUI marks every input that a node looked at, with the same words: it is the
// one that they name first.
export function onlyOnce(errors) {
  return errors.filter((error) => {
    if (!refused(error)) return true;
    const same = errors.filter((other) => refused(other) && reasonOf(other) === reasonOf(error));
    const places = same.map(placeOf).filter((place) => place >= 0);
    return !places.length || placeOf(error) === Math.min(...places);
  });
}

// kinds: of the nodes that are meant. tell(workflow, id, text, run): of each that refuses; the workflow is undefined
// where it has no id, and the run where there is none: others of the graph may be run without those that refuse.
export function followRefusals(kinds, tell) {
  const queuePrompt = api.queuePrompt;
  function look(reply, workflow) {
    for (const [id, node] of Object.entries(reply?.node_errors ?? {})) {
      if (!kinds.has(node.class_type)) continue;
      node.errors = onlyOnce(node.errors);
      const first = node.errors.find(refused);
      if (first) tell(workflow, id, reasonOf(first), reply.prompt_id);
    }
  }
  api.queuePrompt = async function (...given) {
    const workflow = given[1]?.workflow?.id;
    try {
      const reply = await queuePrompt.apply(this, given);
      look(reply, workflow);
      return reply;
    } catch (error) {
      look(error?.response, workflow);
      throw error;
    }
  };
}
