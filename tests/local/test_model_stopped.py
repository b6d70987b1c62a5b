"""A run of the MODEL that ends in the middle - cancelled, failed, or with another model unloaded - leaves no trace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from kontext_bridge.kontext.fp8 import devices, quantising
from kontext_bridge.kontext.fp8.devices import Ability
from kontext_bridge.kontext.fp8.formats import Product
from questions import FP8, INSIDE, Ask, question

if INSIDE:
    import comfy.model_management
    from inside import REFERENCE, conditioning, other_models, ours, run, with_stock_lora
    from kontext_bridge.kontext.comfyui import load as comfyui_load
    from kontext_bridge.kontext.comfyui.patches import layers_of

pytestmark = pytest.mark.comfyui


def raised_by(work: Callable[[], Any]) -> str:
    try:
        work()
    # What ends a run is of many kinds, ComfyUI's for Cancel no Exception of its own.
    except BaseException as error:
        return type(error).__name__
    return "nothing"


def at_call(name: str, number: int, then: Callable[[], Any]) -> tuple[Any, Callable[[Any], None]]:
    """Has `then` done when a layer of that name is used for the number-th time; and what takes it off again."""
    seen = []

    def put_on(model: Any) -> None:
        layer = dict(layers_of(model))[name]
        real = layer._multiply

        def counting(*arguments: Any) -> Any:
            seen.append(1)
            if len(seen) == number:
                then()
            return real(*arguments)

        layer._multiply = counting

    def take_off(model: Any) -> None:
        dict(layers_of(model))[name].__dict__.pop("_multiply", None)

    return put_on, take_off


def cancel() -> None:
    comfy.model_management.interrupt_current_processing(True)


def full() -> None:
    raise torch.OutOfMemoryError("no room")


def broken() -> None:
    raise KeyError("something else")


MODULATION, BLOCK = "diffusion_model.double_blocks.1.img_mod.lin", "diffusion_model.single_blocks.1.linear1"
# The modulation of all steps is worked out at the first, when its layer is used once.
WAYS = {"cancelled": cancel, "out of memory": full, "failed": broken}
PLACES = {"in the middle": (BLOCK, 3), "while steps are foreseen": (MODULATION, 1)}


@question
def ended_in_the_middle() -> Any:
    told = {}
    for memory in "whole", "low":
        for name in "kohya.safetensors", "lokr.safetensors":
            model = with_stock_lora(ours(), name, 0.7)
            comfy.model_management.unload_all_models()
            expected = run(with_stock_lora(ours(), name, 0.7))
            for place, (layer, number) in PLACES.items():
                for way, then in WAYS.items():
                    if name.startswith("lokr") and layer == BLOCK:
                        continue  # written out, it multiplies nothing
                    put_on, take_off = at_call(layer, number, then)
                    put_on(model)
                    if memory == "low":
                        model.partially_load(torch.device("cpu"), model.model_size() // 2 - model.loaded_size())
                    how = raised_by(lambda model=model: run(model))
                    comfy.model_management.interrupt_current_processing(False)
                    take_off(model)
                    same = torch.equal(run(model), expected)
                    told[f"{memory}, {name}, {place}, {way}"] = [how, bool(same)]
                    comfy.model_management.unload_all_models()
    return told


@pytest.mark.parametrize("options", [(), (FP8,)], ids=["stored", "multiplied"])
def test_a_run_that_ended_in_the_middle_and_changes_the_next_is_noticed(options: tuple[str, ...], ask: Ask) -> None:
    told = ask(ended_in_the_middle, *options)
    assert len(told) == 18
    kinds = {"cancelled": "InterruptProcessingException", "out of memory": "OutOfMemoryError", "failed": "KeyError"}
    for case, (how, same) in told.items():
        assert how == kinds[case.rpartition(", ")[2]], (case, how)
        assert same is True, case


@question
def another_model_goes() -> Any:
    """What becomes of a run while another model, and another branch of this one, are unloaded or thrown away."""
    told = {}
    for what in "another model", "another branch":
        model = with_stock_lora(ours(), "kohya.safetensors", 0.7)
        expected = run(model)
        other = other_models()[0] if what == "another model" else with_stock_lora(model, "diffusers.safetensors")
        run(other)
        held = [other]
        del other

        def let_go(held: list[Any] = held, what: str = what) -> None:
            if what == "another model":
                held[0].detach()
            held.clear()

        put_on, take_off = at_call(BLOCK, 3, let_go)
        put_on(model)
        out = run(model)
        take_off(model)
        told[what] = [bool(torch.equal(out, expected)), len(held)]
    return told


def test_a_model_that_is_unloaded_while_another_samples_and_changes_it_is_noticed(ask: Ask) -> None:
    assert ask(another_model_goes) == {"another model": [True, 0], "another branch": [True, 0]}


@question
def a_step_that_never_began() -> Any:
    """A reference that is no picture ends a step before its first block; then the blocks are replaced by a patch."""
    model = ours()
    aside = model.clone()
    aside.set_model_patch_replace(lambda args, extra: extra["original_block"](args), "dit", "double_block", 0)
    expected = run(aside, conditioning(REFERENCE, seed=4))
    run(model)
    strange = conditioning(torch.zeros(1, 16, 8))
    how = raised_by(lambda: run(model, strange))
    steps = model.model.diffusion_model.kontext_bridge_steps
    left = [steps.current is None, steps.read is None]
    return [how != "nothing", *left, bool(torch.equal(run(aside, conditioning(REFERENCE, seed=4)), expected))]


def test_a_step_that_never_began_and_leaves_its_modulation_behind_is_noticed(ask: Ask) -> None:
    assert ask(a_step_that_never_began) == [True, True, True, True]


@question
def one_kernel_when_a_model_is_loaded() -> Any:
    """On which devices quantising in one kernel is tried again whenever a model is loaded."""
    tried: list[str] = []
    devices_told = {"cuda": Product.ROWS, "cpu": Product.ROWS, "xpu": None}
    real = comfyui_load.fp8_on, comfyui_load.join_on
    comfyui_load.fp8_on = lambda device: Ability(devices_told[device.type], "as the test says")
    comfyui_load.join_on = lambda device: tried.append(device.type)
    try:
        for name in devices_told:
            comfyui_load._loaded(None, torch.device(name))
    finally:
        comfyui_load.fp8_on, comfyui_load.join_on = real
    return tried


def test_one_kernel_that_found_no_room_once_and_is_never_tried_again_is_noticed(ask: Ask) -> None:
    assert ask(one_kernel_when_a_model_is_loaded) == ["cuda"]


@question
def marks_after_a_failed_run() -> Any:
    """What is known of the device after full memory in a product, and after a product that cannot be made."""
    real, known, told = torch._scaled_mm, dict(devices._KNOWN), []
    model = ours()
    run(model, steps=1)
    for error in torch.OutOfMemoryError("no room"), KeyError("odd"), NotImplementedError("no such kernel"):

        def fails(*_: Any, error: Exception = error, **__: Any) -> Any:
            raise error

        torch._scaled_mm = fails
        try:
            how = raised_by(lambda: run(model, steps=1))
        finally:
            torch._scaled_mm = real
        told.append([how, devices._KNOWN[torch.device("cpu")].product is not None])
        devices._KNOWN.clear()
        devices._KNOWN.update(known)
    assert not quantising._JOINS.get(torch.device("cpu"))
    return told


def test_full_memory_in_a_run_that_takes_fp8_away_is_noticed(ask: Ask) -> None:
    assert ask(marks_after_a_failed_run, FP8) == [["OutOfMemoryError", True], ["KeyError", True], ["nothing", False]]
