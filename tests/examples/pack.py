"""The pack's files that only ComfyUI's front end reads, and its nodes as they are declared."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kontext_bridge.headless.__main__ import object_info, pack_nodes
from kontext_bridge.headless.run import node_table

REPOSITORY = Path(__file__).resolve().parents[2]
WORKFLOWS = REPOSITORY / "example_workflows"
TWINS = WORKFLOWS / "api"
DOCS = REPOSITORY / "web" / "docs"
LOCALES = REPOSITORY / "locales"
# The templates by the names of their twins, and what an artist reads: the front end shows a template's file name.
TITLES = {
    "remote_edit": "Kontext - edit a picture (Oxen)",
    "remote_edit_app": "Kontext - edit a picture (Oxen).app",
    "submit_and_collect": "Kontext - submit now, collect later (Oxen)",
    "batch_edit": "Kontext - edit a batch (Oxen)",
    "folder_edit": "Kontext - edit a folder (Oxen)",
    "uri_round_trip": "Kontext - pictures as URIs and bytes",
    "edit_and_keep": "Kontext - edit and keep the rest (Oxen)",
    "edits_in_a_row": "Kontext - edits in a row (Oxen)",
    "another_model_edit": "Kontext - edit with another model (Oxen)",
    "masked_remote_edit": "Kontext - edit a masked part (Oxen)",
    "local_edit": "Kontext - edit a picture (local)",
    "masked_edit": "Kontext - edit a masked part (local)",
    "two_references": "Kontext - edit with two pictures (local)",
    "lora_edit": "Kontext - edit with a LoRA (local)",
    "draft_local_finish_remote": "Kontext - draft here, finish at Oxen",
    "demo_edit": "Kontext - edit a picture (demo model)",
    "demo_masked_edit": "Kontext - edit a masked part (demo model)",
    "demo_lora_edit": "Kontext - edit with a LoRA (demo model)",
    "demo_edits_in_a_row": "Kontext - edits in a row (demo model)",
}
# these need ComfyUI's own nodes, which a headless run lacks
DEMOS = ("demo_edit", "demo_masked_edit", "demo_lora_edit", "demo_edits_in_a_row")
LOCAL = ("local_edit", "masked_edit", "two_references", "lora_edit", "draft_local_finish_remote", *DEMOS)
NAMES = tuple(name for name in TITLES if name not in LOCAL)

NODES = asyncio.run(pack_nodes())
TABLE = node_table(NODES)
INFO = object_info(NODES)


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def template(name: str) -> Path:
    """The file that the front end opens; its card has the same name."""
    return WORKFLOWS / f"{TITLES[name]}.json"


def card(name: str) -> Path:
    return WORKFLOWS / f"{TITLES[name]}.jpg"


def inputs_of(node_id: str) -> dict[str, dict[str, Any]]:
    """A node's inputs by name in widget order, with their options."""
    declared = INFO[node_id]["input"]
    return {
        name: spec[1] if len(spec) > 1 else {}
        for kind in ("required", "optional")
        for name, spec in declared.get(kind, {}).items()
    }


def outputs_of(node_id: str) -> Iterator[tuple[str, str]]:
    """A node's outputs in order: name and tooltip."""
    info = INFO[node_id]
    return zip(info["output_name"], info["output_tooltips"], strict=True)
