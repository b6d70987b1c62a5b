// Room for the sentences that an edit is asked for in: a new node, and one whose model is chosen, would else be cut down
// to two lines of it by the front end (1.49, 1.58).
import { app } from "../../../scripts/app.js";

const ASK = new Set(["KontextEdit", "KontextSubmit", "KontextEditLocal", "OxenEdit", "OxenSubmit"]);
const LEAST = 100;

app.registerExtension({
  name: "KontextBridge.PromptBox",
  nodeCreated(node) {
    if (!ASK.has(node.comfyClass)) return;
    const prompt = node.widgets?.find((widget) => widget.name === "prompt");
    if (!prompt?.element) return;
    prompt.options.getMinHeight = () => LEAST;
    node.setSize([node.size[0], node.computeSize()[1]]);
  },
});
