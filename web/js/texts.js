// The words of the pack's pages: locales/<language>/main.json, English where a language lacks one.
import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";

let loading;

async function load() {
  const all = await (await api.fetchApi("/i18n")).json();
  const language = app.extensionManager?.setting?.get("Comfy.Locale") ?? "en";
  return { ...all.en?.kontextBridge, ...all[language]?.kontextBridge };
}

// A function that gives a text by its name, with {names} replaced by values.
export async function texts() {
  loading ??= load().catch((error) => {
    loading = undefined;
    throw error;
  });
  const words = await loading;
  return (name, values = {}) =>
    (words[name] ?? name).replace(/\{(\w+)\}/g, (whole, key) => (key in values ? String(values[key]) : whole));
}
