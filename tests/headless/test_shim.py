"""What somebody who writes a node finds where there is no ComfyUI."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cases import TYPES, node
from comfy_api.latest import io, ui
from kontext_bridge.headless.folders import RunFolders
from kontext_bridge.headless.graph import WorkflowError
from kontext_bridge.headless.run import NodeFailed, run_workflow

Own = io.Custom("OF_ITS_OWN")
PLAIN = {
    **{name.lower(): getattr(io, name) for name in TYPES if name != "Combo"},
    "own": Own,
}
VALUES = {"boolean": True, "float": 2.5, "int": 3, "string": "words", "combo": "b"}


class Source(io.ComfyNode):
    """One output of each type that has no widget."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        linked = [PLAIN[name].Output(name) for name in PLAIN if name not in VALUES]
        return io.Schema(node_id="Source", outputs=[*linked, io.Combo.Output(), io.Int.Output(), io.Float.Output()])

    @classmethod
    def execute(cls) -> io.NodeOutput:
        given = [torch.zeros(1, 2, 2) if name == "mask" else {name: 1} for name in PLAIN if name not in VALUES]
        return io.NodeOutput(*given, "a", 5, 0.5)


class Plain(io.ComfyNode):
    """One input of each type."""

    given: dict[str, Any] = {}  # noqa: RUF012

    @classmethod
    def define_schema(cls) -> io.Schema:
        inputs = [one.Input(name, tooltip=f"A {name}.") for name, one in PLAIN.items()]
        inputs.append(io.Combo.Input("combo", ["a", "b"], default="a", optional=True))
        hidden = [io.Hidden.unique_id, io.Hidden.prompt, io.Hidden.extra_pnginfo]
        return io.Schema("Plain", inputs=inputs, hidden=hidden, is_output_node=True, outputs=[io.AnyType.Output()])

    @classmethod
    def execute(cls, **inputs: Any) -> io.NodeOutput:
        cls.given.update(inputs, hidden=cls.hidden)
        return io.NodeOutput(5, ui=ui.PreviewText("seen"))


def links() -> dict[str, Any]:
    linked = [name for name in PLAIN if name not in VALUES]
    return {name: ["source", index] for index, name in enumerate(linked)}


def test_a_node_with_every_plain_type_is_given_what_its_inputs_say(folders: RunFolders) -> None:
    workflow = {"source": node("Source"), "it": node("Plain", **links(), **VALUES)}
    result = run_workflow(workflow, [Source, Plain], folders)
    assert result.nodes["it"].ui == {"text": ["seen"]}
    assert {name: Plain.given[name] for name in VALUES} == VALUES
    assert Plain.given["vae"] == {"vae": 1} and Plain.given["own"] == {"own": 1}
    hidden = Plain.given["hidden"]
    assert (hidden.unique_id, hidden.prompt, hidden.extra_pnginfo) == ("it", workflow, None)


def test_a_link_of_another_type_is_refused(folders: RunFolders) -> None:
    workflow = {"source": node("Source"), "it": node("Plain", **{**links(), "mask": links()["image"]}, **VALUES)}
    with pytest.raises(WorkflowError, match=r"mask takes MASK, but output .* gives IMAGE"):
        run_workflow(workflow, [Source, Plain], folders)


@pytest.mark.parametrize(("module", "name"), [(io, "Video"), (io, "MultiCombo"), (ui, "PreviewImage")])
def test_a_name_of_comfyuis_that_is_not_here_is_told_with_what_to_do(module: Any, name: str) -> None:
    with pytest.raises(AttributeError, match=rf'has no "{name}" in a run without ComfyUI. Set COMFYUI_PATH'):
        getattr(module, name)


def test_an_option_of_comfyuis_that_is_not_here_is_named() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'lazy'"):
        io.String.Input("text", lazy=True)
    with pytest.raises(TypeError, match=r"Int\.Input.* unexpected keyword argument 'round'"):
        io.Int.Input("count", round=1)


@pytest.mark.parametrize("socket", [{"max": 0}, {"max": 101}, {"min": -1}])
def test_sockets_that_comfyui_does_not_grow_are_refused(socket: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="1 to 100 sockets"):
        io.Autogrow.TemplatePrefix(io.Image.Input("image"), prefix="image_", **socket)


def test_two_inputs_of_one_name_are_refused() -> None:
    class Twice(io.ComfyNode):
        @classmethod
        def define_schema(cls) -> io.Schema:
            return io.Schema("Twice", inputs=[io.Int.Input("n"), io.Float.Input("n")])

    with pytest.raises(ValueError, match="Twice: two of n, n"):
        Twice.GET_SCHEMA()


def test_a_node_without_an_execute_says_so(folders: RunFolders) -> None:
    class Idle(io.ComfyNode):
        @classmethod
        def define_schema(cls) -> io.Schema:
            return io.Schema("Idle", is_output_node=True)

    with pytest.raises(NodeFailed, match=r"Idle.* has no execute"):
        run_workflow({"1": node("Idle")}, [Idle], folders)
