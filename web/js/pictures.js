// How many pictures come into a node, as far as the graph shows it before it runs.

// Nodes that give as many pictures as they get, by the input that they come in by.
const SAME = {
  FluxKontextImageScale: "image",
  ImageScale: "image",
  ImageScaleBy: "image",
  ImageScaleToTotalPixels: "image",
  ImageCrop: "image",
  ImageInvert: "image",
  KontextPrepare: "image",
  PreviewImage: "images",
};
const DEEPEST = 20;

function widget(node, name) {
  const linked = node.inputs?.some((input) => input.name === name && input.link != null);
  return linked ? undefined : Number(node.widgets?.find((one) => one.name === name)?.value);
}

function given(node, depth) {
  if (!node || node.mode !== 0) return undefined;
  const type = node.comfyClass;
  if (type === "LoadImage") return 1;
  if (type in SAME) return picturesInto(node, SAME[type], depth + 1);
  if (type === "RepeatImageBatch") return picturesInto(node, "image", depth + 1) * widget(node, "amount") || undefined;
  if (type === "ImageBatch") {
    return picturesInto(node, "image1", depth + 1) + picturesInto(node, "image2", depth + 1) || undefined;
  }
  return undefined;
}

// undefined where it cannot be told.
export function picturesInto(node, name, depth = 0) {
  const slot = node.inputs?.findIndex((input) => input.name === name) ?? -1;
  if (slot < 0 || depth > DEEPEST) return undefined;
  return given(node.getInputNode?.(slot), depth);
}
