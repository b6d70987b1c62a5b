"""`--set NODE.INPUT=VALUE`: changes a workflow's inputs from the command line."""

from __future__ import annotations

import json
from typing import Any

from .given import WIDGETS, InputSpec, input_specs, is_link
from .graph import NodeClasses, Workflow


class SettingError(Exception):
    """A `--set` that names no input of the workflow, or that is not NODE.INPUT=VALUE."""


def apply_setting(workflow: Workflow, classes: NodeClasses, setting: str) -> None:
    """Carries out one setting in place. Raises SettingError, which names what could have been meant.

    VALUE is JSON where it is JSON and the input is no text, else the text as it stands; a link,
    ["4", 0], connects the input.
    """
    target, equals, value = setting.partition("=")
    id, dot, name = target.partition(".")
    if not equals or not dot:
        raise SettingError(f"--set {setting}: write it as NODE.INPUT=VALUE, 6.prompt=... for one.")
    node = workflow.nodes.get(id)
    if node is None:
        choices = ", ".join(f"{one.id} ({one.class_type})" for one in workflow.nodes.values())
        raise SettingError(f"--set {target}: the workflow has no node {id}. It has: {choices}.")
    if node.class_type not in classes:
        # The run refuses such a node, and says what it does know.
        return
    specs = input_specs(classes[node.class_type], node.inputs)
    if name not in specs:
        choices = ", ".join(specs)
        raise SettingError(f"--set {target}: {node.class_type} has no input {name}. It has: {choices}.")
    given = _value(value, specs[name])
    source = workflow.nodes.get(node.sources.get(name, ""))
    if source is not None and specs[name].type not in WIDGETS and not is_link(given):
        widgets = [f"{source.id}.{one}" for one in source.inputs if one not in source.sources]
        advice = f" Set {' or '.join(widgets)}." if widgets else ""
        raise SettingError(
            f"--set {target}: {name} is fed by a link from node {source.id} ({source.class_type}).{advice}"
        )
    node.inputs[name] = given


def _value(text: str, spec: InputSpec) -> Any:
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if is_link(parsed):
        return parsed
    # 1e3 as a prompt is those three characters, not 1000.0; and a choice may look like a number.
    wants_text = spec.type == "STRING" or text in (spec.choices or ())
    return text if wants_text and not isinstance(parsed, str) else parsed
