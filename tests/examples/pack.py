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
NAMES = ("remote_edit", "submit_and_collect", "batch_edit", "uri_round_trip", "edit_and_keep", "edits_in_a_row")
# these need ComfyUI's own nodes, which a headless run lacks
DEMOS = ("demo_edit", "demo_masked_edit", "demo_lora_edit")
LOCAL = ("local_edit", "masked_edit", "two_references", "lora_edit", "draft_local_finish_remote", *DEMOS)

NODES = asyncio.run(pack_nodes())
TABLE = node_table(NODES)
INFO = object_info(NODES)


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


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
