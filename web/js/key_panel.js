// The key: paste, Save, Test, Remove. It goes to the pack's own route and nowhere else, and is never shown again.
import { ask } from "./asking.js";
import { button, element, enable, field, line, row, saying } from "./elements.js";

const GET_ONE = "https://oxen.ai/settings/profile";
const HERE = ["localhost", "127.0.0.1", "[::1]"];

export function keyPanel(root, text) {
  const input = field({ type: "password", placeholder: text("pasteKey"), ariaLabel: text("pasteKey") });
  const used = element("div", { style: { overflowWrap: "anywhere" } });
  const places = element("ol", { style: { margin: "0", paddingLeft: "1.4rem", listStyle: "decimal" } });
  const [status, say] = saying();
  let state = { places: [] };

  const show = (now) => {
    state = now;
    used.textContent = now.set
      ? text(now.last_four ? "keyInUse" : "keyInUseShort", { last: now.last_four })
      : (now.trouble ?? text("noKey"));
    places.replaceChildren(...now.places.map((place) => placeLine(text, now, place)));
    enable(test, now.set);
    enable(remove, fileOf(now).set || Boolean(fileOf(now).trouble));
  };

  const doing = async (controls, work) => {
    const were = controls.map((control) => control.disabled);
    controls.forEach((control) => enable(control, false));
    try {
      await work();
    } catch (error) {
      say(error.message, true);
      controls.forEach((control, index) => enable(control, !were[index]));
    }
  };

  const save = button(text("save"), () =>
    doing([save, test, remove], async () => {
      const key = input.value.trim();
      if (!key) throw new Error(text("pasteFirst"));
      show(await ask("POST", "key", { key }));
      input.value = "";
      enable(save, true);
      say(state.from === "file" ? text("saved") : text("savedAndNotUsed", { source: state.source }));
    }),
  );
  const test = button(text("test"), () =>
    doing([save, test, remove], async () => {
      say(text("testing"));
      const told = await ask("POST", "key/test", {});
      show(await ask("GET", "key"));
      enable(save, true);
      say(told.text, told.result !== "good");
    }),
  );
  const remove = button(text("remove"), () =>
    doing([save, test, remove], async () => {
      show(await ask("DELETE", "key"));
      enable(save, true);
      say(state.set ? text("removedAndStill", { source: state.source }) : text("removed"));
    }),
  );

  input.addEventListener("keydown", (event) => event.key === "Enter" && save.click());
  const link = element("a", { href: GET_ONE, target: "_blank", rel: "noopener noreferrer", textContent: text("getKey") });
  link.style.textDecoration = "underline";
  root.append(used, places, row(input, save, test, remove), status);
  if (location.protocol === "http:" && !HERE.includes(location.hostname)) {
    root.append(line(text("notEncrypted", { host: location.host })));
  }
  root.append(link);
  enable(test, false);
  enable(remove, false);
  ask("GET", "key").then(show, (error) => say(error.message, true));
}

function fileOf(state) {
  return state.places.find((place) => place.name === "file") ?? {};
}

function placeLine(text, state, place) {
  const what = place.trouble ?? text(!place.set ? "placeEmpty" : place.name === state.from ? "placeUsed" : "placeUnused");
  const style = { overflowWrap: "anywhere", color: place.trouble ? "var(--error-text)" : "var(--descrip-text)" };
  return element("li", { textContent: text("place", { where: text(`where_${place.name}`, place), what }), style });
}
