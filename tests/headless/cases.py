"""Workflows of the sample pack, and what any host must make of them."""

from __future__ import annotations

from typing import Any

Workflow = dict[str, dict[str, Any]]


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def echo(**inputs: Any) -> dict[str, Any]:
    usual = {"text": "hi", "steps": 28, "guidance": 2.5, "shape": "16:9", "count": 2}
    return node("SampleEcho", **{**usual, **inputs})


def _without(name: str) -> dict[str, Any]:
    one = echo()
    del one["inputs"][name]
    return one


# The types that a node can be written with where there is no ComfyUI.
TYPES = [
    "AnyType",
    "Boolean",
    "Clip",
    "Combo",
    "Conditioning",
    "Float",
    "Image",
    "Int",
    "Latent",
    "Mask",
    "Model",
    "String",
    "Vae",
]

# Workflow, and the kinds of what is wrong with it, in ComfyUI's words.
REFUSED: dict[str, tuple[Workflow, set[str]]] = {
    "an unknown node": ({"1": node("NoSuchNode")}, {"missing_node_type"}),
    "an unknown node that leads nowhere": ({"1": echo(), "2": node("NoSuchNode")}, {"missing_node_type"}),
    "no output node": ({"1": node("SampleList", words="a")}, {"prompt_no_outputs"}),
    "a missing input": ({"1": _without("text")}, {"required_input_missing"}),
    "a number too small": ({"1": echo(steps=3)}, {"value_smaller_than_min"}),
    "a number too big": ({"1": echo(guidance=10.5)}, {"value_bigger_than_max"}),
    "a word for a number": ({"1": echo(steps="many")}, {"invalid_input_type"}),
    "an unknown choice": ({"1": echo(shape="9:17")}, {"value_not_in_list"}),
    "a choice of another type": ({"1": echo(count="2")}, {"value_not_in_list"}),
    "a link of another type": (
        {"1": node("SampleList", words="a"), "2": echo(text=["1", 1])},
        {"return_type_mismatch"},
    ),
    "a link to a number": ({"1": node("SampleList", words="a"), "2": echo(steps=["1", 0])}, {"return_type_mismatch"}),
    "a link of three": ({"1": node("SampleList", words="a"), "2": echo(text=["1", 0, 0])}, {"bad_linked_input"}),
    "a message of its own": (
        {"1": node("SampleChecked", small=1, own=1, text="")},
        {"custom_validation_failed"},
    ),
    "a range next to one it checks itself": (
        {"1": node("SampleChecked", small=9, own=1, text="a")},
        {"value_bigger_than_max"},
    ),
    "two nodes that wait for each other": (
        {"1": echo(text=["2", 0]), "2": echo(text=["1", 0])},
        {"dependency_cycle"},
    ),
    "a growing socket that must be connected": (
        {"1": node("SampleRefs")},
        {"required_input_missing"},
    ),
    "an input of a choice out of its range": (
        {"1": node("SampleChoice", text="", model="large", **{"model.steps": 10})},
        {"value_bigger_than_max"},
    ),
    "a choice without an input that it needs": (
        {"1": node("SampleChoice", text="", model="large")},
        {"required_input_missing"},
    ),
    "two things at once": (
        {"1": echo(steps=3, shape="no")},
        {"value_smaller_than_min", "value_not_in_list"},
    ),
}

# Workflow, and the texts that each node shows.
RUNS: dict[str, tuple[Workflow, dict[str, list[str]]]] = {
    "values converted to the type of their input": (
        {"1": echo(steps="5", guidance="3", text=12, loud=1)},
        {
            "1": [
                '{"count": 2, "extra": null, "guidance": 3.0, "id": "1", "loud": true, '
                '"shape": "16:9", "steps": 5, "text": "12"}'
            ]
        },
    ),
    "an input it does not have": (
        {"1": echo(no_such_input=5)},
        {"1": ['{"count": 2, "extra": null, "guidance": 2.5, "id": "1", "shape": "16:9", "steps": 28, "text": "hi"}']},
    ),
    "a list that runs a node once for each element": (
        {"1": node("SampleList", words="a b"), "2": node("SampleChecked", small=1, own=9, text=["1", 0])},
        {"2": ['{"own": 9, "small": 1, "text": "a"}', '{"own": 9, "small": 1, "text": "b"}']},
    ),
    "a list that a node takes whole": (
        {"1": node("SampleList", words="a b c"), "2": node("SampleJoin", words=["1", 0], by="+")},
        {"2": ['"a+b+c"']},
    ),
    "an input that wants any type": (
        {"1": node("SampleList", words="a"), "2": echo(text="x", anything=["1", 1], token=["1", 1])},
        {
            "2": [
                '{"anything": "a", "count": 2, "extra": null, "guidance": 2.5, "id": "2", '
                '"shape": "16:9", "steps": 28, "text": "x", "token": "a"}'
            ]
        },
    ),
    "sockets that grow, with a gap": (
        {
            "1": node("SampleList", words="a b"),
            "2": node("SampleJoin", words=["1", 0], by="+"),
            "3": node("SampleRefs", **{"refs.ref_0": ["2", 0], "refs.ref_2": ["2", 0], "sides.side_0": ["2", 0]}),
        },
        {
            "2": ['"a+b"'],
            "3": ['{"refs": {"ref_0": "\\"a+b\\"", "ref_2": "\\"a+b\\""}, "sides": {"side_0": "\\"a+b\\""}}'],
        },
    ),
    "sockets that grow, none connected": (
        {"1": node("SampleRefs", **{"sides.side_0": "x"})},
        {"1": ['{"refs": {}, "sides": {"side_0": "x"}}']},
    ),
    "a choice with inputs of its own": (
        {
            "1": node("SampleChoice", text="t", model="large", **{"model.steps": "3", "model.refs.ref_1": "x"}),
            "2": node("SampleChoice", text="t", model="large", **{"model.steps": 3, "model.size": "1K"}),
            "3": node("SampleChoice", text="t", model="plain"),
            "4": node("SampleChoice", text="t"),
        },
        {
            "1": ['{"model": {"model": "large", "refs": {"ref_1": "x"}, "size": null, "steps": 3}, "text": "t"}'],
            "2": ['{"model": {"model": "large", "refs": {}, "size": "1K", "steps": 3}, "text": "t"}'],
            "3": ['{"model": {"model": "plain"}, "text": "t"}'],
            "4": ['{"text": "t"}'],
        },
    ),
    "a node that blocks what follows": (
        {
            "1": node("SampleBlock", why="stop"),
            "2": echo(text=["1", 0]),
            "3": echo(text="goes on"),
        },
        {
            "3": [
                '{"count": 2, "extra": null, "guidance": 2.5, "id": "3", "shape": "16:9", '
                '"steps": 28, "text": "goes on"}'
            ]
        },
    ),
}
