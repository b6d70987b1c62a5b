"""Walks a newcomer's first edit in the real front end and pictures every step: `make walk` does it.

A fresh folder of ComfyUI, the stand-in in Oxen.ai's place, and a mouse: what is clicked is found as an eye finds it, by
its words. Writes docs/pictures/first_edit_*.jpg, which docs/first-edit.md shows, and prints decisions, clicks and
seconds. COMFYUI_PATH names ComfyUI's folder, COMFYUI_PYTHON its Python.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
for folder in (HERE, HERE.parent):
    sys.path.insert(0, str(folder))

import conftest  # noqa: E402, F401
from browser import Tab, a_tab  # noqa: E402
from comfy_server import comfy_server_with  # noqa: E402
from front_end import READY, SHOWN  # noqa: E402
from kontext_bridge.standin import StandIn, Timing  # noqa: E402
from pack import REPOSITORY, TITLES  # noqa: E402
from PIL import Image, ImageDraw  # noqa: E402

PICTURES = REPOSITORY / "docs" / "pictures"
WINDOW = (1600, 1040)
# Where no node is, once the template is open.
FREE = (720.0, 790.0)
WIDTH, RING = 1000, 26
KEY = "a-key-of-the-stand-in-4321"
# About what an edit takes there.
TIMING = Timing(queued_s=1.0, processing_s=8.0)
LONG_S = 180.0
TEMPLATE = TITLES["remote_edit"]
NODE = "window.app.graph.nodes.find((node) => node.comfyClass === 'KontextEdit')"
LINE = f"{NODE}.widgets.find((widget) => widget.name === 'kontext_bridge_line').element.innerText"
EDIT = "document.querySelector('[data-kontext-edits] [data-edit]:not([hidden])')"
PANEL = "document.querySelector('input[type=password]').closest('div[style*=column]')"


def words(text: str, inside: str = "body") -> str:
    """The element that shows these words and nothing else."""
    return (
        f"[...document.querySelectorAll({json.dumps(inside + ' *')})].find((one) => !one.children.length && "
        f"one.textContent.replaceAll('\\u00ad', '').trim() === {json.dumps(text)} && one.offsetParent)"
    )


def labelled(label: str) -> str:
    return f"document.querySelector('button[aria-label^=\"{label}\"]')"


@dataclass
class Walk:
    """One who has never been here. Counts what he does; `since` is when the page was there."""

    tab: Tab
    into: Path
    since: float = field(default_factory=time.monotonic)
    clicks: int = 0
    decisions: list[str] = field(default_factory=list)
    taken: list[str] = field(default_factory=list)

    def decide(self, what: str) -> None:
        self.decisions.append(what)

    def place(self, element: str) -> tuple[float, float]:
        """Where an element can be clicked, once it is there."""
        self.tab.wait(element, LONG_S)
        self.tab.value(f"({element}).scrollIntoView({{ block: 'nearest' }})")
        time.sleep(0.5)
        box = f"({element}).getBoundingClientRect()"
        x, y = self.tab.value(f"[{box}.left + {box}.width / 2, {box}.top + {box}.height / 2]")
        return x, y

    def mouse(self, kind: str, place: tuple[float, float]) -> None:
        button = {"button": "none"} if kind == "mouseMoved" else {"button": "left", "clickCount": 1}
        self.tab.call("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], **button)

    def click(self, element: str) -> None:
        self.click_at(self.place(element))

    def click_at(self, place: tuple[float, float]) -> None:
        self.clicks += 1
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.mouse(kind, place)
            time.sleep(0.1)

    def drag(self, start: tuple[float, float], goal: tuple[float, float]) -> None:
        """A button that is held counts as a click."""
        self.clicks += 1
        self.mouse("mouseMoved", start)
        self.mouse("mousePressed", start)
        for part in (0.02, 0.1, 0.4, 0.8, 0.99, 1.0, 1.0):
            time.sleep(0.3)
            x, y = (start[at] + (goal[at] - start[at]) * part for at in (0, 1))
            self.tab.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y, button="left", buttons=1)
        self.mouse("mouseReleased", goal)

    def picture(self, name: str, at: tuple[float, float] | None = None) -> None:
        """What is to be seen now, with a ring around what comes next."""
        number = len(self.taken) + 1
        self.taken.append(f"{number} {name}: {time.monotonic() - self.since:.0f} s, {self.clicks} clicks")
        with tempfile.TemporaryDirectory() as folder:
            raw = Path(folder) / "page.png"
            self.tab.picture(raw)
            page = Image.open(raw).convert("RGB")
        if at is not None:
            box = (at[0] - RING, at[1] - RING, at[0] + RING, at[1] + RING)
            ImageDraw.Draw(page).ellipse(box, outline=(255, 196, 0), width=5)
        page = page.resize((WIDTH, page.height * WIDTH // page.width), Image.Resampling.LANCZOS)
        page.save(self.into / f"first_edit_{number}_{name}.jpg", quality=84, optimize=True)

    def says(self, text: str) -> None:
        """The node says so."""
        self.tab.wait(f"{LINE}.includes({json.dumps(text)})", LONG_S)

    def settle(self) -> None:
        """The run is over for the front end, too, and its pictures are drawn."""
        self.tab.wait(f"{SHOWN}.includes('0 active')", LONG_S)
        time.sleep(2)

    def widget(self, name: str) -> tuple[float, float]:
        """Where a widget of the node is drawn on the canvas."""
        x, y = self.tab.value(
            "(() => { const { ds, canvas } = window.app.canvas; const box = canvas.getBoundingClientRect(); "
            f"const node = {NODE}; const widget = node.widgets.find((one) => one.name === {json.dumps(name)}); "
            "const [x, y] = [node.pos[0] + node.size[0] * 0.7, node.pos[1] + widget.y + 10]; "
            "return [(x + ds.offset[0]) * ds.scale + box.left, (y + ds.offset[1]) * ds.scale + box.top]; })()"
        )
        return x, y


RUN = "document.querySelector('[data-testid=queue-button]')"
STOP = labelled("Cancel current run")


def open_template(walk: Walk) -> None:
    """Where nothing was opened before, ComfyUI shows its templates by itself."""
    walk.tab.wait("document.querySelector('[role=dialog]')", LONG_S)
    walk.click(words("kontext-bridge", "[role=dialog]"))
    card = walk.place(words(TEMPLATE, "[role=dialog]"))
    walk.tab.wait("[...document.querySelectorAll('[role=dialog] img')].filter((one) => one.naturalWidth).length > 7")
    time.sleep(1)
    walk.picture("templates", card)
    walk.decide("which template")
    walk.click_at(card)
    walk.tab.wait(f"{NODE} && !document.querySelector('[role=dialog]')", LONG_S)
    time.sleep(3)


def set_the_key(walk: Walk, key: str) -> None:
    """Without one, and then where the node says."""
    walk.click(RUN)
    walk.says("No Oxen.ai key: Settings > Kontext Bridge")
    walk.settle()
    walk.picture("no_key", walk.place(labelled("Settings (")))
    walk.click(labelled("Settings ("))
    walk.click(words("Kontext Bridge", "[role=dialog]"))
    walk.tab.wait(f"{PANEL}.textContent.includes('No key is set')", LONG_S)
    walk.click("document.querySelector('input[type=password]')")
    walk.decide("the key")
    walk.tab.type(key)
    walk.click(words("Save", "[role=dialog]"))
    walk.tab.wait(f"{PANEL}.textContent.includes('Saved.')", LONG_S)
    walk.picture("key")
    walk.click("document.querySelector('[role=dialog] button:has(.pi-times), [role=dialog] button[aria-label=Close]')")
    walk.tab.wait("!document.querySelector('[role=dialog]')")


def run_and_cancel(walk: Walk) -> None:
    walk.click(RUN)
    walk.says("processing")
    walk.tab.wait(f"/ [3-9] s|[3-9] s$/.test({LINE}) || {LINE}.includes('3 s')", LONG_S)
    walk.picture("progress", walk.place(STOP))
    walk.click(STOP)
    walk.says("cancelled")
    walk.settle()
    walk.picture("cancelled", walk.place(RUN))


def run_to_the_end(walk: Walk) -> None:
    walk.click(RUN)
    walk.says("done")
    walk.settle()
    walk.picture("done", walk.widget("keep"))


def bring_back(walk: Walk) -> None:
    """Something is asked of the same edit once more, and not paid again."""
    walk.decide("keep what was not edited")
    walk.click_at(walk.widget("keep"))
    walk.click(words("auto", ".litecontextmenu"))
    walk.click(RUN)
    walk.says("brought back")
    walk.settle()
    walk.picture("brought_back", walk.place(words("Edits")))


def find_and_drag(walk: Walk) -> None:
    walk.click(words("Edits"))
    walk.tab.wait(f"{EDIT}?.querySelector('img').naturalWidth", LONG_S)
    time.sleep(1)
    start = walk.place(EDIT)
    walk.picture("panel", start)
    before = walk.tab.value("window.app.graph.nodes.length")
    walk.drag(start, FREE)
    walk.tab.wait(f"window.app.graph.nodes.length === {before + 1}")
    walk.tab.wait("window.app.graph.nodes.at(-1).imgs?.[0]?.naturalWidth")
    time.sleep(2)
    walk.picture("on_the_canvas")


def all_of_it(tab: Tab, url: str, key: str, into: Path) -> Walk:
    width, height = WINDOW
    tab.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
    tab.open(url)
    tab.wait(READY, LONG_S)
    walk = Walk(tab, into)
    open_template(walk)
    set_the_key(walk, key)
    run_and_cancel(walk)
    run_to_the_end(walk)
    bring_back(walk)
    find_and_drag(walk)
    return walk


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, StandIn(key=KEY, timing=TIMING) as service:
        base = Path(folder) / "ComfyUI"
        nobodys = {"OXEN_BASE_URL": service.url, "OXEN_API_KEY": "", "OXEN_CONFIG_DIR": str(base / "oxen")}
        with (
            comfy_server_with({"kontext-bridge": REPOSITORY}, base, nobodys) as server,
            a_tab(Path(folder) / "profile") as tab,
        ):
            walk = all_of_it(tab, server.url, KEY, PICTURES)
        lines = [*walk.taken, f"decisions: {', '.join(walk.decisions)}", f"edits sent: {len(service.billed)}"]
        sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
