"""Checks every node that leads to an output node against its schema, and converts widget values."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

from comfy_api.latest import io

from .calls import call
from .given import InputSpec, input_specs, is_link
from .graph import Node, NodeClasses, Problem, Workflow, WorkflowError


def _text(value: Any) -> str:
    # ComfyUI would take null for the word None, and pay for it
    if value is None or isinstance(value, (list, dict)):
        raise TypeError
    return str(value)


_CONVERTERS: dict[str, Callable[[Any], Any]] = {"INT": int, "FLOAT": float, "STRING": _text, "BOOLEAN": bool}


async def validate(workflow: Workflow, classes: NodeClasses) -> list[Node]:
    """The nodes to run, sources first. Converts widget values in place to their input's type.

    Only nodes that lead to an output node are looked at and run. Raises WorkflowError with everything that is wrong.
    """
    unknown = [
        Problem("missing_node_type", _unknown_class(node, classes))
        for node in workflow.nodes.values()
        if node.class_type not in classes
    ]
    if unknown:
        raise WorkflowError(*unknown)
    nodes = workflow.nodes.values()
    outputs = [node.id for node in nodes if classes[node.class_type].GET_SCHEMA().is_output_node]
    if not outputs:
        text = "The workflow has no output node, so nothing would run. Add SaveImage or PreviewImage."
        raise WorkflowError(Problem("prompt_no_outputs", text))

    problems: list[Problem] = []
    needed = _needed(workflow, outputs, problems)
    for node in needed:
        problems += [
            Problem(kind, text, node.id, node.class_type)
            for kind, text in await _node_problems(node, workflow, classes)
        ]
    if problems:
        raise WorkflowError(*problems)
    return needed


def _needed(workflow: Workflow, outputs: list[str], problems: list[Problem]) -> list[Node]:
    """The nodes that lead to `outputs`, sources first; a cycle goes to `problems`."""
    order: list[Node] = []
    done: set[str] = set()
    path: list[str] = []

    def visit(id: str) -> None:
        if id in done or id not in workflow.nodes:
            return
        node = workflow.nodes[id]
        if id in path:
            cycle = " -> ".join([*path[path.index(id) :], id])
            text = f"The nodes {cycle} wait for each other; take one link out."
            problems.append(Problem("dependency_cycle", text, id, node.class_type))
            return
        path.append(id)
        for source in node.sources.values():
            visit(source)
        path.pop()
        done.add(id)
        order.append(node)

    for id in outputs:
        visit(id)
    return order


async def _node_problems(node: Node, workflow: Workflow, classes: NodeClasses) -> list[tuple[str, str]]:
    node_class = classes[node.class_type]
    specs = input_specs(node_class, node.inputs)
    own_check = _own_check(node_class)
    problems = [
        ("bad_linked_input", f'it has no input "{name}" to link to. It has: {", ".join(specs)}.')
        for name in node.sources
        if name not in specs
    ]
    for spec in specs.values():
        problems += _input_problems(spec, node, workflow, classes, own_check)
    if not problems and own_check is not None:
        problems += await _own_problems(node, node_class, own_check)
    return problems


def _input_problems(
    spec: InputSpec,
    node: Node,
    workflow: Workflow,
    classes: NodeClasses,
    own_check: inspect.FullArgSpec | None,
) -> Iterator[tuple[str, str]]:
    if spec.name not in node.inputs:
        if spec.required:
            yield "required_input_missing", f'the required input "{spec.name}" is missing.'
        return
    value = node.inputs[spec.name]
    if isinstance(value, list):
        if own_check is not None and "input_types" in own_check.args:
            return
        yield from _link_problems(spec, value, workflow, classes)
        return
    if isinstance(value, dict) and "__value__" in value:
        value = value["__value__"]
    try:
        value = _CONVERTERS.get(spec.type, lambda same: same)(value)
    except (TypeError, ValueError, OverflowError):
        yield "invalid_input_type", f"{spec.name}: {value!r} is not a value of type {spec.type}."
        return
    node.inputs[spec.name] = value
    if own_check is None or (spec.name not in own_check.args and own_check.varkw is None):
        yield from _range_problems(spec, value)


def _link_problems(
    spec: InputSpec, value: list[Any], workflow: Workflow, classes: NodeClasses
) -> Iterator[tuple[str, str]]:
    if not is_link(value):
        yield "bad_linked_input", f"{spec.name}: {value!r} is not a link, [node id, output index]."
        return
    source, index = value
    if source not in workflow.nodes:
        yield "bad_linked_input", f"{spec.name} is linked from node {source}, which is not in the workflow."
        return
    offered = [one.io_type for one in classes[workflow.nodes[source].class_type].GET_SCHEMA().outputs]
    if not 0 <= index < len(offered):
        yield "bad_linked_input", f"{spec.name} is linked from output {index} of node {source}, which has none."
    elif not _fits(offered[index], spec.type):
        yield (
            "return_type_mismatch",
            f"{spec.name} takes {spec.type}, but output {index} of node {source} gives {offered[index]}.",
        )


def _range_problems(spec: InputSpec, value: Any) -> Iterator[tuple[str, str]]:
    options = spec.options
    if "min" in options and value < options["min"]:
        yield "value_smaller_than_min", f"{spec.name}: {value} is below the least allowed, {options['min']}."
    elif "max" in options and value > options["max"]:
        yield "value_bigger_than_max", f"{spec.name}: {value} is above the most allowed, {options['max']}."
    elif spec.choices is not None and value not in spec.choices:
        yield "value_not_in_list", f"{spec.name}: {value!r} is none of {_some(spec.choices)}."


def _own_check(node_class: type[io.ComfyNode]) -> inspect.FullArgSpec | None:
    """What the node's own validate_inputs takes. Whatever it names, ComfyUI does not check itself."""
    own = node_class.__mro__[: node_class.__mro__.index(io.ComfyNode)]
    if not any("validate_inputs" in vars(one) for one in own):
        return None
    return inspect.getfullargspec(node_class.validate_inputs)


async def _own_problems(
    node: Node, node_class: type[io.ComfyNode], own_check: inspect.FullArgSpec
) -> list[tuple[str, str]]:
    # Links have no value yet; ComfyUI passes None for them.
    known = {
        name: [None if is_link(value) else value]
        for name, value in node.inputs.items()
        if name in own_check.args or own_check.varkw is not None
    }
    if "input_types" in own_check.args:
        return [("custom_validation_failed", "validate_inputs with input_types runs in ComfyUI only.")]
    answers = await call(node_class, "validate_inputs", known, hidden={})
    refusals = dict.fromkeys(answer for answer in answers if answer is not True)
    return [
        ("custom_validation_failed", str(refusal) if refusal is not False else "its inputs were refused.")
        for refusal in refusals
    ]


def _fits(given: str, wanted: str) -> bool:
    """Whether a link may join the types; each may be several, "IMAGE,MASK", and "*" is any."""
    one, other = ({name.strip() for name in types.split(",")} for types in (given, wanted))
    return bool(one & other) or "*" in one | other


def _unknown_class(node: Node, classes: NodeClasses) -> str:
    return (
        f'Node {node.id} is a "{node.class_type}", which a headless run does not know. '
        f"It knows: {', '.join(sorted(classes))}."
    )


def _some(choices: list[Any]) -> str:
    if not choices:
        return "those that can be chosen here: there are none"
    shown = ", ".join(map(str, choices[:20]))
    return shown if len(choices) <= 20 else f"{shown} and {len(choices) - 20} more"
