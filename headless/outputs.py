"""What a run gives back, and how it is made of what the nodes return."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from comfy_api.latest import io

from ..host import Blocked
from .folders import RunFolders

Returned = io.NodeOutput | Blocked


@dataclass
class NodeResult:
    """What one node gave.

    `outputs` holds, for each output, the list of its values (most often one); `texts` the STRING ones by
    their shown name; `ui` what the node shows; `files` the pictures it saved.
    """

    class_type: str
    outputs: list[list[Any]]
    texts: dict[str, str]
    ui: dict[str, list[Any]]
    files: list[Path]
    seconds: float = 0.0


@dataclass
class RunResult:
    """What a run gave, by node id, in the order in which the nodes finished.

    `blocked` holds the message of each node that blocked what follows it.
    """

    nodes: dict[str, NodeResult] = field(default_factory=dict)
    blocked: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


def as_output(returned: object) -> Returned:
    """What a call returned, as ComfyUI reads it. Raises TypeError where that is nothing a node may return."""
    if isinstance(returned, Returned):
        return returned
    if returned is None or isinstance(returned, tuple):
        return io.NodeOutput(*(returned or ()))
    raise TypeError(f"Invalid return type from node: {type(returned)}")


def node_result(class_type: str, schema: io.Schema, returned: list[Returned], folders: RunFolders) -> NodeResult:
    """One node's result from what each of its calls returned.

    Raises ValueError where a call gave more or fewer values than the schema declares, none at all aside, and
    TypeError where it expands into other nodes.
    """
    rows = [row for row in (_row(one, len(schema.outputs)) for one in returned) if row]
    outputs = [
        _column([row[index] for row in rows], output.is_output_list)
        for index, output in enumerate(schema.outputs if rows else ())
    ]
    texts = {
        output.display_name or str(output.id): "\n".join(map(str, values))
        for output, column in zip(schema.outputs, outputs, strict=False)
        if output.io_type == "STRING" and (values := [value for value in column if not isinstance(value, Blocked)])
    }
    ui = _ui(returned)
    return NodeResult(class_type, outputs, texts, ui, _files(ui, folders))


def blocking(returned: Iterable[Returned], used: set[int]) -> list[str]:
    """The reasons that the calls gave for blocking what follows; of single outputs, those in `used`."""
    reasons = []
    for one in returned:
        if isinstance(one, Blocked):
            continue
        values = [value for index, value in enumerate(one.result or ()) if index in used]
        reasons += [one.block_execution, *(value.message for value in values if isinstance(value, Blocked))]
    return [reason for reason in reasons if reason is not None]


def _row(returned: Returned, declared: int) -> tuple[Any, ...]:
    if isinstance(returned, Blocked):
        return (returned,) * declared
    if returned.expand is not None:
        raise TypeError("It expands into other nodes, which a headless run does not do.")
    values = returned.result or ()
    blocks = returned.block_execution is not None
    # ComfyUI fails on a node that blocks without a placeholder for each output.
    if (values or blocks) and len(values) != declared:
        raise ValueError(f"It gave {len(values)} values but declares {declared} outputs.")
    return (Blocked(returned.block_execution),) * declared if blocks else values


def _column(values: list[Any], is_list: bool) -> list[Any]:
    if not is_list:
        return values
    return [one for value in values for one in ([value] if isinstance(value, Blocked) else value)]


def _ui(returned: Iterable[Returned]) -> dict[str, list[Any]]:
    merged: dict[str, list[Any]] = {}
    for one in returned:
        if isinstance(one, Blocked) or one.ui is None:
            continue
        shown = one.ui if isinstance(one.ui, dict) else one.ui.as_dict()
        for key, values in shown.items():
            merged.setdefault(key, []).extend(values)
    return merged


def _files(ui: dict[str, list[Any]], folders: RunFolders) -> list[Path]:
    saved = [one for values in ui.values() for one in values if isinstance(one, dict)]
    return [folders.path_of(one) for one in saved if {"filename", "subfolder", "type"} <= one.keys()]
