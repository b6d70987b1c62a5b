// Asks the pack's own routes on ComfyUI's server; an answer that is an error is raised in the server's words.
import { api } from "../../../scripts/api.js";

export async function ask(method, path, body) {
  const options = { method, cache: "no-store" };
  if (body !== undefined) {
    options.headers = { "Content-Type": "application/json" };
    options.body = JSON.stringify(body);
  }
  const reply = await api.fetchApi(`/kontext-bridge/${path}`, options);
  const value = await reply.json().catch(() => ({}));
  if (!reply.ok) throw new Error(value.error ?? `HTTP ${reply.status}`);
  return value;
}
