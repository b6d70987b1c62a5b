"""The MODEL inside a real ComfyUI on pretended GPUs: what a step moves, takes and waits for, wherever its weights are.

Files are of the full width and sparse on the disk. Off ComfyUI: tests/kontext/test_pretended_model.py.
"""

from __future__ import annotations

import inspect
from collections import Counter
from dataclasses import replace
from functools import cache
from typing import Any
from unittest import mock

import pytest
from questions import INSIDE, Ask, question

if INSIDE:
    import cards
    import comfy.model_patcher
    import full_size
    import torch
    from inside import folder
    from kontext_bridge.kontext.checkpoint.layers import KONTEXT
    from kontext_bridge.kontext.comfyui import load as comfyui_load
    from kontext_bridge.kontext.comfyui.patches import layers_of
    from kontext_bridge.kontext.fp8.devices import ability
    from pretended_comfyui import (
        FEW_BLOCKS,
        comfyui_on,
        dynamic_vram,
        ours,
        room_for,
        steps_of,
        with_a_changed_weight,
        with_lora,
    )

pytestmark = pytest.mark.comfyui

OPTIONS = ("--use-pytorch-cross-attention",)


@cache
def _file(doubles: int = 1, singles: int = 2, scaled: bool = True) -> Any:
    size = replace(KONTEXT, doubles=doubles, singles=singles)
    kind = "fp8" if scaled else "bf16"
    return full_size.write_sparse(folder / f"kontext_{doubles}_{singles}_{kind}.safetensors", size=size, scaled=scaled)


def _told(counted: Any) -> dict[str, Any]:
    return {
        "kernels": len(counted.kernels),
        "multiplied": any("_scaled_mm" in kernel.name for kernel in counted.kernels),
        "bytes": counted.bytes,
        "peak": counted.peak,
        "moves": len(counted.moves),
        "brought": sum(move.bytes for move in counted.moves if move.to_device),
        "taken": sum(move.bytes for move in counted.moves if not move.to_device),
        "waits": counted.waits,
    }


@question
def later_steps() -> Any:
    """Of each card, with and without LoRA, the last step of an edit."""
    told = {}
    for card in cards.CARDS:
        with comfyui_on(card) as gpu:
            plain = ours(_file())
            told[card.name] = {
                "plain": _told(steps_of(gpu, plain)[-1]),
                "lora": _told(steps_of(gpu, with_lora(plain))[-1]),
                "fp8": card.capability >= (8, 9),
            }
    return told


def test_a_later_step_that_moves_a_tensor_is_noticed_on_every_gpu(ask: Ask) -> None:
    for card, told in ask(later_steps, *OPTIONS).items():
        for step in told["plain"], told["lora"]:
            assert step["moves"] == 0, card
            # The noise level is read, so that what was computed for it is found.
            assert len(step["waits"]) <= 1, (card, step["waits"])
            assert step["multiplied"] == told["fp8"], card


PRODUCTS = ("mm", "addmm", "addmm_", "bmm", "_scaled_mm")


@question
def products_of_a_batch() -> Any:
    """Of each card that multiplies FP8: products of an edit that are not made once for each picture of a batch."""
    told = {}
    for card in cards.RTX_40, cards.RTX_40_WITH_TRITON, cards.RTX_40_ON_WINDOWS:
        for what, change in {"lora": with_lora, "changed": with_a_changed_weight}.items():
            with comfyui_on(card) as gpu:
                model = change(ours(_file()))
                alone, both = (
                    Counter(kernel for step in steps for kernel in step.kernels if kernel.name in PRODUCTS)
                    for steps in (steps_of(gpu, model, steps=2, side=32, batch=batch) for batch in (1, 2))
                )
            told[f"{card.name}, {what}"] = [
                f"{kind}: {both[kind]} in place of {2 * alone[kind]}"
                for kind in {**alone, **both}
                # What becomes of the noise level is the same for all pictures.
                if both[kind] not in (alone[kind], 2 * alone[kind])
            ]
    return told


def test_a_product_that_takes_the_pictures_of_a_batch_together_is_noticed(ask: Ask) -> None:
    told = ask(products_of_a_batch, *OPTIONS)
    assert len(told) == 6 and not any(told.values()), told


@question
def in_part() -> Any:
    """With room for all and for two fifths of the weights: the last step, and how many bytes of weights are there."""
    told = []
    for card in cards.RTX_30, cards.RTX_40, cards.RTX_40_ON_WINDOWS:
        for part in 1.0, 0.4:
            with comfyui_on(card) as gpu, room_for(part):
                for model in ours(_file()), with_lora(ours(_file())):
                    step = _told(steps_of(gpu, model)[-1])
                    away = model.model_size() - model.model.model_loaded_weight_memory
                    lora = sum(
                        matrix.nbytes
                        for module in model.model.modules()
                        for branch in getattr(module, "branches", ())
                        for matrix in (branch.down, branch.up)
                        if not gpu.has(matrix)
                    )
                    told.append(step | {"part": part, "away": away, "lora": lora, "card": card.name})
    return told


def test_weights_that_find_no_room_and_are_brought_more_than_once_a_step_are_noticed(ask: Ask) -> None:
    for step in ask(in_part, *OPTIONS):
        if step["part"] == 1:
            assert step["away"] == step["moves"] == 0, step
        else:
            # Modulation has been worked out at the first step.
            assert 0 < step["brought"] <= step["away"] + step["lora"], step
        assert step["taken"] == 0 and len(step["waits"]) <= 1, step


@question
def quantised_without_room() -> Any:
    """Of a 16-bit file on a GPU that other models fill: whether its layers are FP8, and where they were made so."""
    places = []

    def full(rows: torch.Tensor) -> Any:
        places.append(rows.device.type)
        if rows.device.type == "cuda":
            raise torch.OutOfMemoryError("CUDA out of memory")
        # Of the shapes alone: a CPU would take seconds.
        return torch.empty(rows.shape, dtype=torch.float8_e4m3fn), torch.ones(len(rows), 1)

    with comfyui_on(cards.RTX_30), mock.patch.object(comfyui_load, "quantise_rows", full):
        model = ours(_file(1, 1, scaled=False))
        layers = [layer for _, layer in layers_of(model) if layer.weight_scale is not None]
        return sorted(set(places)), len(layers), sorted({layer.weight.device.type for layer in layers})


def test_a_16_bit_file_that_a_full_gpu_keeps_from_loading_is_noticed(ask: Ask) -> None:
    places, fp8, where = ask(quantised_without_room, *OPTIONS)
    assert places == ["cpu", "cuda"] and fp8 > 0 and where == ["cpu"]


@question
def memory() -> Any:
    """What a step of each product takes beside the weights, and what ComfyUI was told that it would."""
    told = {}
    for card in cards.RTX_30, cards.RTX_40, cards.RTX_40_ON_WINDOWS:
        for references, side in ((0, 128), (1, 128), (2, 96)):
            with comfyui_on(card) as gpu:
                model = with_lora(ours(_file()))
                shape = [1, 16, side, side]
                shapes = {"ref_latents": [[1, 16, references * side * side]]} if references else {}
                estimate = model.model.memory_required(shape, cond_shapes=shapes)
                steps = steps_of(gpu, model, references=references, side=side)
                peaks = [step.peak for step in steps]
            told[f"{card.name}, {references} references, {side}"] = [max(peaks[1:]), int(estimate)]
    return told


def test_a_step_that_takes_more_memory_than_comfyui_was_told_is_noticed(ask: Ask) -> None:
    for case, (peak, told) in ask(memory, *OPTIONS).items():
        assert peak <= told, case


@question
def by_dynamic_vram() -> Any:
    """With room for all and for two fifths: faults and unpins of the last step, and which weights are placed last."""
    told = []
    for room in float("inf"), 0.3e9:
        with comfyui_on(cards.RTX_40) as gpu, dynamic_vram(room) as vram:
            model = with_lora(ours(_file()))
            assert model.is_dynamic()
            steps_of(gpu, model, steps=2)
            vram.faults = vram.unpins = 0
            step = _told(steps_of(gpu, model, steps=2)[-1])
            last = [name for name, module in model.model.named_modules() if hasattr(module, "_v")]
            last.sort(key=lambda name: model.model.get_submodule(name)._v[1])
            modulation = [any(part in name for part in ("_mod.", "modulation", "adaLN")) for name in last]
            beside = {
                str(tensor.device.type)
                for module in model.model.modules()
                if hasattr(module, "plan")
                for tensor in (module.weight_scale, *(m for b in module.branches for m in (b.down, b.up)))
                if tensor is not None
            }
            told.append(
                step
                | {
                    "faults": vram.faults,
                    "unpins": vram.unpins,
                    "modulation_last": modulation == sorted(modulation) and any(modulation),
                    "beside": sorted(beside),
                    "room": room > 1e12,
                    # Older ones do not ask what is placed last.
                    "asked": "get_dynamic_vram__units" in inspect.getsource(comfy.model_patcher),
                }
            )
    return told


def test_a_weight_that_dynamic_vram_never_gets_back_is_noticed(ask: Ask) -> None:
    whole, part = ask(by_dynamic_vram, *OPTIONS)
    for step in whole, part:
        assert step["faults"] > 0 and step["unpins"] > 0
        assert step["modulation_last"] or not step["asked"]
        # Scales and LoRA are there whether or not the weight is.
        assert step["beside"] == ["cuda"]
        assert step["taken"] == 0
    assert whole["moves"] == 0 and part["brought"] > 0


@question
def failing_late() -> Any:
    """Whether steps are taken once every FP8 product fails, and what is known of the GPU then."""
    with comfyui_on(cards.RTX_40) as gpu:
        model = ours(_file())
        before = _told(steps_of(gpu, model)[-1])
        real = torch._scaled_mm

        def fails(*_: Any, **__: Any) -> Any:
            raise RuntimeError("no kernel image for this GPU")

        torch._scaled_mm = fails
        try:
            after = _told(steps_of(gpu, model)[-1])
        finally:
            torch._scaled_mm = real
        return {"before": before, "after": after, "why": ability(gpu.device).why}


def test_a_product_that_fails_in_the_middle_and_is_tried_again_at_every_layer_is_noticed(ask: Ask) -> None:
    told = ask(failing_late, *OPTIONS)
    assert told["before"]["multiplied"] and not told["after"]["multiplied"]
    assert "has failed" in told["why"] and told["after"]["moves"] == 0


# Kernels, and bytes in 1e9, of a step of the full model at 1024x1024 with one reference: no more than these.
CEILINGS = {
    "multiplied row-wise": (3399, 233.4),
    "multiplied row-wise, LoRA": (4045, 303.8),
    "multiplied tensor-wise": (3513, 237.4),
    "multiplied tensor-wise, LoRA": (4159, 307.8),
    "stored": (1678, 215.5),
    "stored, LoRA": (2324, 285.9),
}


@question
def costs() -> Any:
    """Of each product, with and without LoRA, a step of the full model: from models of few blocks."""
    told = {}
    for title, card in (
        ("multiplied row-wise", cards.RTX_40),
        ("multiplied tensor-wise", cards.RTX_40_ON_WINDOWS),
        ("stored", cards.RTX_30),
    ):
        for lora in False, True:
            few, double, single = (_cost(card, doubles, singles, lora) for doubles, singles in ((1, 2), (2, 2), (1, 3)))
            more = KONTEXT.doubles - FEW_BLOCKS.doubles, KONTEXT.singles - FEW_BLOCKS.singles
            told[title + (", LoRA" if lora else "")] = [
                f + more[0] * (d - f) + more[1] * (s - f) for f, d, s in zip(few, double, single, strict=True)
            ]
    return told


def _cost(card: Any, doubles: int, singles: int, lora: bool) -> tuple[int, int]:
    with comfyui_on(card) as gpu:
        model = ours(_file(doubles, singles))
        step = steps_of(gpu, with_lora(model) if lora else model)[-1]
    return len(step.kernels), step.bytes


def test_a_step_that_moves_more_bytes_than_it_did_is_noticed(ask: Ask, tables: dict[str, list[str]]) -> None:
    told = ask(costs, *OPTIONS)
    lines = tables.setdefault("A step at 1024x1024 inside ComfyUI, counted: kernels, GB moved", [])
    lines += [f"{case}: {kernels}, {moved / 1e9:.1f}" for case, (kernels, moved) in told.items()]
    for case, (kernels, gigabytes) in CEILINGS.items():
        assert told[case][0] <= kernels and told[case][1] <= gigabytes * 1e9, case
