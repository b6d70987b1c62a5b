"""What saved workflows hold on to: `make generated` writes schema.json anew, where nothing of it is broken.

A changed file is a promise to every saved workflow: review its difference before it is committed. Where a promise is
broken on purpose, `python tests/nodes/schema.py > tests/nodes/schema.json` writes it all the same.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

# what a widget stores or refuses; tooltips, placeholders and the like may change freely
_KEPT = ("default", "min", "max", "step", "options", "control_after_generate", "multiline", "forceInput")
# written down so that a change is seen, and breaks nothing
_SEEN = ("advanced",)
Snapshot = dict[str, Any]
DYNAMIC = "COMFY_DYNAMICCOMBO_V3"
# an input that files could leave out, and now must give
NEEDED = ("optional", "required")


def snapshot() -> dict[str, Snapshot]:
    """For each node id: display name, inputs in order with their types and limits, outputs in order."""
    from kontext_bridge.headless import ensure_comfy_api

    ensure_comfy_api()
    from kontext_bridge import comfy_entrypoint

    async def classes() -> Any:
        return await (await comfy_entrypoint()).get_node_list()

    return {node.GET_SCHEMA().node_id: of_node(node) for node in asyncio.run(classes())}


def of_node(node: Any) -> Snapshot:
    info = json.loads(json.dumps(node.GET_NODE_INFO_V1()))
    return {
        "shown_as": info["display_name"],
        "inputs": [
            [kind, name, *_widget(name, *spec)]
            for kind in ("required", "optional")
            for name, spec in info["input"].get(kind, {}).items()
        ],
        "outputs": [list(pair) for pair in zip(info["output"], info["output_name"], strict=True)],
        "is_output_node": info["output_node"],
    }


def _widget(input_name: str, kind: Any, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
    if kind == DYNAMIC:
        return kind, {"options": {one["key"]: " ".join(_own(one["inputs"])) for one in (options or {})["options"]}}
    kept = {name: value for name, value in (options or {}).items() if name in _KEPT + _SEEN}
    if input_name == "file":
        # whatever this machine's model folders hold
        kept.pop("options", None)
        kept.pop("default", None)
    return kind, kept


def _own(inputs: dict[str, Any]) -> list[str]:
    """The names of a choice's own inputs, in the order in which their values are saved."""
    return [name for kind in ("required", "optional") for name in inputs.get(kind, {})]


def broken(before: dict[str, Snapshot], now: dict[str, Snapshot]) -> list[str]:
    """What is wrong for workflows saved with `before`, a sentence each."""
    found = [f"{node}: the node is gone; workflows with it do not load." for node in before if node not in now]
    for node in before.keys() & now.keys():
        old, new = before[node], now[node]
        if [one[1] for one in new["inputs"]][: len(old["inputs"])] != [one[1] for one in old["inputs"]]:
            found.append(
                f"{node}: inputs were {[one[1] for one in old['inputs']]} and are {[one[1] for one in new['inputs']]}; "
                "widget values are stored by position, so only append."
            )
        if new["outputs"][: len(old["outputs"])] != old["outputs"]:
            found.append(f"{node}: outputs were {old['outputs']} and are {new['outputs']}; links go to positions.")
        current = {one[1]: one for one in new["inputs"]}
        found += [
            f"{node}.{one[1]}: was {one} and is {current[one[1]]}."
            for one in old["inputs"]
            if one[1] in current and (_held(current[one[1]]) != _held(one) or (one[0], current[one[1]][0]) == NEEDED)
        ]
        found += [
            f"{node}.{one[1]}.{key}: its own inputs were {one[3]['options'][key]!r}; only append, and keep the choice."
            for one in old["inputs"]
            if one[2] == DYNAMIC and one[1] in current
            for key in _choices_broken(one[3]["options"], current[one[1]][3]["options"])
        ]
    return sorted(found)


def _choices_broken(old: dict[str, str], new: dict[str, str]) -> list[str]:
    """Which choices of a DynamicCombo are gone, or have their own inputs otherwise than appended to."""
    return [key for key, names in old.items() if new.get(key, "").split()[: len(names.split())] != names.split()] + [
        key for key in old if key not in new and not old[key]
    ]


def _held(one: list[Any]) -> list[Any]:
    """An input without what may change: what must be given may later be left out."""
    if one[2] == DYNAMIC:
        return one[1:3]
    return [
        {name: value for name, value in part.items() if name not in _SEEN} if isinstance(part, dict) else part
        for part in one[1:]
    ]


if __name__ == "__main__":
    sys.stdout.write(json.dumps(snapshot(), indent=1) + "\n")
