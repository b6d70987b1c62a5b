"""The MODEL saved, merged and taken the difference of by ComfyUI's own nodes, and read again."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from questions import INSIDE, SAME, Ask, question
from safetensors import safe_open

if INSIDE:
    import comfy.model_management
    import comfy.sd
    import comfy.utils
    from comfy_extras import nodes_lora_extract, nodes_model_merging
    from inside import apart, dense, folder, forward, fp8_bytes, other_models, ours, refusal, run, with_stock_lora
    from kontext_bridge.kontext.comfyui import load as comfyui

pytestmark = pytest.mark.comfyui
SAVED = (
    "legacy",
    "legacy_full_precision",
    "per_row",
    "plain_everything",
    "scaled_e5m2",
    "diffusers_scaled",
    "bfloat16",
)


def delta(tensors, name):
    if f"{name}.diff" in tensors:
        return tensors[f"{name}.diff"].float()
    return tensors[f"{name}.lora_up.weight"].float() @ tensors[f"{name}.lora_down.weight"].float()


def saved(model, name):
    path = folder / f"kontext_saved_{name}.safetensors"
    comfy.sd.save_checkpoint(str(path), model)
    return path


@question
def extracted() -> Any:
    """Extract and Save LoRA, of the difference of two models and of a model alone, loaded whole and in part."""
    (mine, truth), told = other_models(), {}
    apart_from = {
        "difference": lambda one, two: nodes_model_merging.ModelSubtract().merge(one, two, 1.0)[0],
        "model": lambda one, two: one,
        "lora": lambda one, two: with_stock_lora(one, "kohya.safetensors"),
    }
    for what, change in apart_from.items():
        for kind in nodes_lora_extract.LORAType:
            expected = nodes_lora_extract.calc_lora_model(
                change(dense(), truth), 8, "diffusion_model.", "diffusion_model.", {}, kind, bias_diff=True
            )
            for memory in "whole", "low":
                model = change(ours(), mine)
                if memory == "low":
                    model.load(torch.device("cpu"), lowvram_model_memory=1)
                    whole = comfy.model_management.load_models_gpu
                    comfy.model_management.load_models_gpu = lambda models: None
                try:
                    got = nodes_lora_extract.calc_lora_model(
                        model, 8, "diffusion_model.", "diffusion_model.", {}, kind, bias_diff=True
                    )
                finally:
                    if memory == "low":
                        comfy.model_management.load_models_gpu = whole
                told[f"{what} {kind.name} {memory}"] = {
                    "same names": got.keys() == expected.keys(),
                    "apart": max(
                        apart(delta(got, name), delta(expected, name))
                        for name in {key.removesuffix(".diff").removesuffix(".lora_up.weight") for key in expected}
                        if not name.endswith((".diff_b", ".weight"))
                    ),
                }
    return told


def test_an_extracted_lora_that_is_not_the_difference_of_the_models_numbers_is_noticed(ask: Ask) -> None:
    told = ask(extracted)
    assert len(told) == 12
    assert all(one["same names"] for one in told.values())
    # ComfyUI writes 16 bits.
    assert max(one["apart"] for one in told.values()) < 1e-3, told


@question
def saved_and_read_again() -> Any:
    told = {}
    for layout in SAVED:
        model = ours(layout)
        path = saved(model, layout)
        again = comfyui.load(path).model
        with safe_open(path, "pt") as file:
            hints = [
                json.loads(bytes(file.get_tensor(name).tolist()))
                for name in file.keys()  # noqa: SIM118
                if name.endswith(".comfy_quant")
            ]
        told[layout] = {
            "ours": apart(run(again, steps=2), run(model, steps=2)),
            "bytes": fp8_bytes(again) == fp8_bytes(model),
            "stock": apart(run(comfy.sd.load_diffusion_model(str(path)), steps=2), run(dense(layout), steps=2)),
            "full precision": {hint.get("full_precision_matrix_mult", False) for hint in hints} == {True},
        }
    return told


@pytest.mark.parametrize("layout", SAVED)
def test_a_saved_model_that_reads_as_another_is_noticed(layout: str, ask: Ask) -> None:
    told = ask(saved_and_read_again)[layout]
    assert told["bytes"] is True and told["ours"] == 0
    assert told["stock"] < SAME
    assert told["full precision"] == layout.endswith("full_precision")


@question
def saved_from_low_memory() -> Any:
    model = ours()
    path = folder / "kontext_saved_low.safetensors"
    model.load(torch.device("cpu"), lowvram_model_memory=model.model_size() // 2)
    comfy.utils.save_torch_file(model.state_dict_for_saving(), str(path))
    model.detach()
    return apart(run(comfyui.load(path).model), run(ours()))


def test_a_partly_loaded_model_that_is_saved_wrong_is_noticed(ask: Ask) -> None:
    assert ask(saved_from_low_memory) == 0


@question
def saved_changed() -> Any:
    merged = nodes_model_merging.ModelMergeSimple().merge(ours(), other_models()[0], 0.5)[0]
    changed = {
        "lora": with_stock_lora(ours(), "kohya.safetensors"),
        "lokr": with_stock_lora(ours(), "lokr.safetensors"),
        "merge": merged,
    }
    told = {}
    for name, model in changed.items():
        told[name] = refusal(lambda model=model, name=name: saved(model, name))
        run(model)
        told[f"{name} after a run"] = refusal(lambda model=model, name=name: saved(model, name))
    return {"told": told, "files": [name for name in changed if list(folder.glob(f"kontext_saved_{name}.*"))]}


def test_a_lora_or_a_merge_that_is_saved_without_its_effect_is_noticed(ask: Ask) -> None:
    answer = ask(saved_changed)
    assert len(answer["told"]) == 6
    assert all("Save the model without" in (text or "saved") for text in answer["told"].values()), answer["told"]
    assert answer["files"] == []


@question
def merged() -> Any:
    (_, other), plain = other_models(), dense()
    merging = {
        "simple": lambda one, two: nodes_model_merging.ModelMergeSimple().merge(one, two, 0.6)[0],
        "subtract": lambda one, two: nodes_model_merging.ModelSubtract().merge(one, two, 0.5)[0],
        "add": lambda one, two: nodes_model_merging.ModelAdd().merge(one, two)[0],
    }
    told = {}
    for name, merge in merging.items():
        one = ours()
        before = run(one)
        together, truth = merge(one, other_models()[0]), merge(plain, other)
        expected = run(truth)
        told[name] = {
            "apart": apart(run(together), expected),
            "effect": apart(expected, run(plain)),
            "taken off again": bool(torch.equal(run(one), before)),
        }
        comfy.model_management.load_models_gpu([truth])
        step = forward(truth)
        comfy.model_management.load_models_gpu([together])
        told[name]["step"] = apart(forward(together), step)
        together.detach()
        together.load(torch.device("cpu"), lowvram_model_memory=1)
        told[name]["low memory"] = apart(forward(together), step)
        together.detach()
    return told


@pytest.mark.parametrize(("merge", "near"), [("simple", 1e-3), ("subtract", 1e-3), ("add", 5e-3)])
def test_a_merge_of_two_models_that_is_not_that_of_their_numbers_is_noticed(merge: str, near: float, ask: Ask) -> None:
    told = ask(merged)[merge]
    assert told["effect"] > 1e-2
    assert told["low memory"] < SAME
    # ComfyUI writes merged biases and norms in the file's own bfloat16.
    assert max(told["apart"], told["step"]) < near
    assert told["taken off again"] is True
