"""Help pages in the real front end, in other languages: the right page comes, its picture, and links to follow."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Tab, a_tab, chromium
from comfy_server import ComfyServer, comfy_server_with, comfyui
from pack import DOCS, LOCALES, REPOSITORY, read
from test_pages import LINK

pytestmark = pytest.mark.comfyui
PAGE = "[...document.querySelectorAll('h1')].find((one) => one.textContent === {title})?.parentElement"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    comfyui()
    chromium()
    base = tmp_path_factory.mktemp("comfyui") / "base"
    with comfy_server_with({"kontext-bridge": REPOSITORY}, base, {"OXEN_API_KEY": ""}) as running:
        yield running


@pytest.fixture(params=["en", "zh", "pt-BR"])
def opened(request: pytest.FixtureRequest, server: ComfyServer, tmp_path: Path) -> Iterator[tuple[Tab, str]]:
    """The front end in a language, with that language."""
    assert server.post("/api/settings", {"Comfy.TutorialCompleted": True, "Comfy.Locale": request.param})[0] == 200
    with a_tab(tmp_path / "profile") as tab:
        tab.open(server.url)
        tab.wait("window.app?.extensionManager?.command && window.LiteGraph?.registered_node_types?.KontextEdit")
        yield tab, request.param


def show(tab: Tab, id: str, title: str) -> str:
    """A node alone, selected, with its help; gives the page as an expression."""
    page = f"({PAGE.format(title=json.dumps(title))})"
    alone = f"app.graph.nodes.length === 1 && app.graph.nodes[0].type === '{id}'"
    tab.value(
        "window.tryIt = () => { if (Date.now() - (window.lastTry ?? 0) < 3000) return; window.lastTry = Date.now();"
        f" if (!({alone})) {{ app.graph.clear(); const one = LiteGraph.createNode('{id}');"
        " one.pos = [400, 300]; app.graph.add(one); }"
        " app.canvas.selectNode(app.graph.nodes[0]);"
        " setTimeout(() => document.querySelector('[data-testid=info-button]')?.click(), 1000); }"
    )
    # what a page does while it still loads may be undone, and a second press closes what the first has opened
    tab.wait(f"{page} || (window.tryIt(), false)")
    return page


@pytest.mark.parametrize("id", ["KontextEdit", "KontextKeep"])
def test_a_page_in_another_language_or_its_picture_or_links_that_do_not_come_is_noticed(
    opened: tuple[Tab, str], id: str
) -> None:
    tab, language = opened
    page = show(tab, id, read(LOCALES / language / "nodeDefs.json")[id]["display_name"])
    written = DOCS / f"{id}.md" if language == "en" else DOCS / id / f"{language}.md"
    links = tab.value(f"[...{page}.querySelectorAll('a')].map((one) => [one.href, one.target])")
    assert links == [[link, "_blank"] for link in LINK.findall(written.read_text(encoding="utf-8"))]
    assert "**" not in tab.value(f"{page}.textContent")
    if id == "KontextKeep":
        tab.wait(f"{page}.querySelector('img').naturalWidth > 0")
