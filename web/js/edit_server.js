// What the panel asks of the server, and where the pictures of an edit are.
import { api } from "../../../scripts/api.js";
import { ask } from "./asking.js";

export const pictureOf = (id, kind = "picture") => api.apiURL(`/kontext-bridge/edits/${id}/${kind}`);
export const allEdits = (search) => ask("GET", `edits?search=${encodeURIComponent(search)}`);
export const editsNow = () => ask("GET", "edits/now");
export const oneEdit = (id) => ask("GET", `edits/${id}`);
export const graphOf = (id) => ask("GET", `edits/${id}/graph`);
export const cancelJob = (id) => ask("POST", `edits/${id}/cancel`, {});
export const collectJob = (id) => ask("POST", `edits/${id}/collect`, {});

// Copy an edit's picture into ComfyUI's input folder by its own upload; gives its name there.
export async function bringToInput(id) {
  const reply = await api.fetchApi(`/kontext-bridge/edits/${id}/picture`);
  if (!reply.ok) throw new Error((await reply.json().catch(() => ({}))).error ?? `HTTP ${reply.status}`);
  const picture = await reply.blob();
  const form = new FormData();
  form.append("image", new File([picture], `kontext-${id}.${picture.type.split("/")[1] ?? "png"}`, { type: picture.type }));
  form.append("type", "input");
  const sent = await api.fetchApi("/upload/image", { method: "POST", body: form });
  if (!sent.ok) throw new Error(`HTTP ${sent.status}`);
  const { name, subfolder } = await sent.json();
  return subfolder ? `${subfolder}/${name}` : name;
}
