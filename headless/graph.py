"""Reads an API-format workflow and finds what is wrong with it before anything runs.

The rules are ComfyUI's, read from its behaviour; `Problem.kind` is ComfyUI's own word for each. One is
stricter here: ComfyUI runs the output nodes that are in order and ignores the others, this refuses the
whole workflow, so that nothing is paid for a run that cannot succeed.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .given import is_link

if TYPE_CHECKING:
    from comfy_api.latest import io

NodeClasses = Mapping[str, "type[io.ComfyNode]"]


@dataclass(frozen=True)
class Problem:
    """One thing that keeps a workflow from running. `kind` is ComfyUI's error type."""

    kind: str
    text: str
    node_id: str | None = None
    class_type: str | None = None

    def __str__(self) -> str:
        return self.text if self.node_id is None else f"Node {self.node_id} ({self.class_type}): {self.text}"


class WorkflowError(Exception):
    """The workflow cannot run; `problems` says why, one by one."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


@dataclass(frozen=True)
class Node:
    """One node of a workflow. `inputs` holds values and links, [node id, output index]."""

    id: str
    class_type: str
    inputs: dict[str, Any]

    @property
    def sources(self) -> dict[str, str]:
        """Input name to the id of the node it is linked from."""
        return {name: value[0] for name, value in self.inputs.items() if is_link(value)}

    @property
    def links(self) -> list[list[Any]]:
        """The outputs that its inputs are linked from, [node id, output index]."""
        return [value for value in self.inputs.values() if is_link(value)]


@dataclass(frozen=True)
class Workflow:
    """A workflow and the document it came from.

    `prompt` is what a node sees as hidden prompt and what SaveImage embeds. Its inputs and those of `nodes`
    are the same dicts: a value that validation converts is converted in both.
    """

    nodes: dict[str, Node]
    prompt: dict[str, Any]


def read_workflow(path: Path) -> Workflow:
    """The workflow in a file. Raises WorkflowError where there is none that can be run."""
    try:
        # PowerShell and Notepad begin a file with a byte order mark.
        return parse_workflow(json.loads(path.read_text(encoding="utf-8-sig")))
    except OSError as error:
        raise WorkflowError(_wrong(f"The workflow {path} cannot be read: {error.strerror}.")) from error
    except ValueError as error:
        raise WorkflowError(_wrong(f"The workflow {path} is not JSON: {error}.")) from error
    except RecursionError:
        raise WorkflowError(_wrong(f"The workflow {path} is nested too deeply to be one.")) from None


def parse_workflow(document: object) -> Workflow:
    """The workflow in a JSON document, which stays untouched. Raises WorkflowError."""
    if not isinstance(document, dict) or not document:
        raise WorkflowError(_wrong("The workflow holds no nodes."))
    if isinstance(document.get("nodes"), list):
        raise WorkflowError(
            _wrong(
                "This is a workflow as ComfyUI saves it for its editor. Open it there, choose "
                "File > Export (API), and run the file that this writes."
            )
        )
    prompt = copy.deepcopy(document)
    problems = [
        Problem("missing_node_type", f"Node {id} is not a node: it needs class_type and inputs.")
        for id, entry in prompt.items()
        if not (
            isinstance(entry, dict)
            and isinstance(entry.get("class_type"), str)
            and isinstance(entry.setdefault("inputs", {}), dict)
        )
    ]
    if problems:
        raise WorkflowError(*problems)
    nodes = {id: Node(id, entry["class_type"], entry["inputs"]) for id, entry in prompt.items()}
    return Workflow(nodes, prompt)


def _wrong(text: str) -> Problem:
    return Problem("invalid_prompt", text)
