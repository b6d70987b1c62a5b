// Two pictures in one place: before the edit to the left of a line that can be moved, after it to the right.
import { element } from "./elements.js";

const FULL = { position: "absolute", inset: "0", width: "100%", height: "100%" };

// before is undefined where there is none; then the picture stands alone.
export function compareSlider({ before, after, label }) {
  const picture = element("img", { src: after, alt: "", draggable: false, decoding: "async" });
  Object.assign(picture.style, { display: "block", width: "100%" });
  const style = { position: "relative", borderRadius: "0.35rem", overflow: "hidden", background: "var(--comfy-input-bg)" };
  const root = element("div", { style }, picture);
  if (!before) return root;
  const first = element("img", { src: before, alt: "", draggable: false, decoding: "async" });
  Object.assign(first.style, { ...FULL, objectFit: "contain", background: "var(--comfy-input-bg)" });
  const line = element("div", {
    style: {
      position: "absolute",
      top: "0",
      bottom: "0",
      width: "2px",
      marginLeft: "-1px",
      background: "#fff",
      boxShadow: "0 0 3px #000",
      pointerEvents: "none",
    },
  });
  const grip = element("div", {
    style: {
      position: "absolute",
      top: "50%",
      left: "50%",
      width: "22px",
      height: "22px",
      transform: "translate(-50%, -50%)",
      borderRadius: "50%",
      background: "#fff",
      boxShadow: "0 0 3px #000",
    },
  });
  line.append(grip);
  const range = element("input", { type: "range", min: "0", max: "100", step: "0.1", value: "50", ariaLabel: label });
  Object.assign(range.style, { ...FULL, margin: "0", opacity: "0", cursor: "ew-resize", touchAction: "pan-y" });
  const move = () => {
    first.style.clipPath = `inset(0 ${100 - Number(range.value)}% 0 0)`;
    line.style.left = `${range.value}%`;
  };
  // anywhere on the picture, not only where a browser draws its knob
  const follow = (event) => {
    const box = root.getBoundingClientRect();
    range.value = String(Math.min(100, Math.max(0, ((event.clientX - box.left) / box.width) * 100)));
    move();
  };
  range.addEventListener("pointerdown", (event) => {
    event.preventDefault();
    range.focus();
    range.setPointerCapture(event.pointerId);
    follow(event);
  });
  range.addEventListener("pointermove", (event) => event.buttons && follow(event));
  range.addEventListener("input", move);
  first.addEventListener("error", () => [first, line, range].forEach((one) => one.remove()));
  root.append(first, line, range);
  move();
  return root;
}
