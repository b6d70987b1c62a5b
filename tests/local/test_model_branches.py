"""Several MODELs made of one that was loaded, as the branches of a graph are: LoRA, strengths, merges, memory."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch
from questions import FP8, INSIDE, SAME, Ask, question

if INSIDE:
    import comfy.model_management
    import comfy.sd
    import comfy.utils
    from comfy_extras import nodes_model_merging
    from inside import (
        REFERENCE,
        apart,
        conditioning,
        dense,
        folder,
        forward,
        fp8_bytes,
        other_models,
        ours,
        random,
        refusal,
        run,
        with_stock_lora,
    )
    from kontext_bridge.kontext.comfyui import lora as comfyui_lora
    from kontext_bridge.kontext.comfyui import sampler as comfyui_sampler
    from kontext_bridge.kontext.comfyui.patches import layers_of
    from kontext_bridge.kontext.edit import LatentEdit

pytestmark = pytest.mark.comfyui

Change = Callable[[Any], Any]


def with_own_lora(model: Any, name: str, strength: float = 1.0) -> Any:
    return comfyui_lora.with_lora(model, folder / "loras" / name, strength)


def changes(put: Callable[..., Any]) -> dict[str, Change]:
    """Branches of a graph, by a node that puts LoRA on."""
    return {
        "plain": lambda model: model,
        "kohya": lambda model: put(model, "kohya.safetensors", 0.7),
        "diffusers": lambda model: put(model, "diffusers.safetensors", -0.4),
        "stronger": lambda model: put(model, "kohya.safetensors", 1.1),
        "lokr": lambda model: put(model, "lokr.safetensors", 0.7),
        "three": lambda model: put(
            with_stock_lora(put(model, "kohya.safetensors", 0.5), "diffusers.safetensors", 0.3), "lokr.safetensors", 0.2
        ),
        "the same twice": lambda model: put(put(model, "kohya.safetensors", 0.4), "kohya.safetensors", 0.3),
    }


@question
def in_turns() -> Any:
    """Each branch after every other, from one loaded model."""
    truth = dense()
    expected = {name: run(change(truth), steps=2) for name, change in changes(with_stock_lora).items()}
    model, told = ours(), {}
    branches = {name: change(model) for name, change in changes(with_own_lora).items()}
    kept, first = fp8_bytes(model), {}
    for one in branches:
        for other in branches:
            for name in one, other:
                out = run(branches[name], steps=2)
                first.setdefault(name, out)
                if not torch.equal(out, first[name]):
                    told[f"{one}, {other}"] = f"{name} is another picture than the first time"
    figures = {name: apart(out, expected[name]) for name, out in first.items()}
    twice = apart(first["the same twice"], first["kohya"])
    return {"told": told, "apart": figures, "twice": twice, "bytes": fp8_bytes(model) == kept}


def test_branches_of_a_graph_that_leave_lora_on_one_another_are_noticed(ask: Ask) -> None:
    answer = ask(in_turns)
    assert answer["told"] == {} and answer["bytes"] is True
    assert max(answer["apart"].values()) < 1e-3, answer["apart"]
    assert answer["twice"] < SAME


@question
def changed_between_runs() -> Any:
    """A strength that is set anew: the branch before is thrown away, as ComfyUI does with what a node gave."""
    model, told = ours(), []
    plain = run(model, steps=2)
    for strength in 0.7, 0.2, 0.0, 1.5, 0.7:
        branch = with_own_lora(model, "kohya.safetensors", strength)
        out = run(branch, steps=2)
        fresh = run(with_own_lora(ours(), "kohya.safetensors", strength), steps=2)
        told.append([bool(torch.equal(out, fresh)), bool(torch.equal(out, plain))])
        del branch
        gc.collect()
    return [*told, [bool(torch.equal(run(model, steps=2), plain)), True]]


def test_a_strength_that_is_changed_and_remembered_is_noticed(ask: Ask) -> None:
    assert ask(changed_between_runs) == [
        [True, False],
        [True, False],
        [True, True],
        [True, False],
        [True, False],
        [True, True],
    ]


@question
def in_little_memory() -> Any:
    """Branches in turns, each with another part of the weights in memory, and some of it given back in between."""
    cpu, truth, model, told = torch.device("cpu"), dense(), ours(), {}
    expected = {}
    for name, change in changes(with_stock_lora).items():
        changed = change(truth)
        comfy.model_management.load_models_gpu([changed])
        expected[name] = forward(changed)
    branches = {name: change(model) for name, change in changes(with_own_lora).items()}
    comfy.model_management.unload_all_models()
    for number, (name, branch) in enumerate([*branches.items(), *reversed(branches.items())]):
        extra = branch.model_size() * (0.2, 0.5, 0.9)[number % 3] - branch.loaded_size()
        branch.partially_load(cpu, extra)
        whole = apart(forward(branch), expected[name])
        branch.partially_unload(cpu, branch.model_size() // 4)
        told[f"{number} {name}"] = max(whole, apart(forward(branch), expected[name]))
    model.detach()
    return told


def test_branches_in_little_memory_that_leave_lora_on_one_another_are_noticed(ask: Ask) -> None:
    told = ask(in_little_memory)
    assert max(told.values()) < 1e-3, told


@question
def in_a_batch() -> Any:
    """How far a picture in a batch of two, guided and with a LoRA, is from the same alone; and the batch from dense."""
    pictures = torch.cat([REFERENCE, 3 * random(1, 16, 8, 12, seed=8)])

    def sampled(model: Any, pictures: torch.Tensor, seed: int) -> torch.Tensor:
        edit = LatentEdit(96, 64, steps=2, batch=len(pictures), true_cfg=3.0)
        negative = conditioning(seed=9)
        out: torch.Tensor = comfyui_sampler.sample(
            model, edit, conditioning(), [pictures], seed=seed, negative=negative
        )
        return out

    told = {}
    for name, change in changes(with_own_lora).items():
        model = change(ours())
        both = sampled(model, pictures, 3)
        told[name] = [
            apart(both[1:], sampled(model, pictures[1:], 4)),
            apart(both, sampled(changes(with_stock_lora)[name](dense()), pictures, 3)),
        ]
    return told


@pytest.mark.parametrize("options", [(), (FP8,)], ids=["stored", "multiplied"])
def test_a_picture_with_lora_that_depends_on_its_batch_is_noticed(options: tuple[str, ...], ask: Ask) -> None:
    told = ask(in_a_batch, *options)
    assert max(alone for alone, _ in told.values()) < SAME, told
    # Guidance of 3 makes as much of what FP8 products round away, with a LoRA or without.
    assert max(strayed for _, strayed in told.values()) < (1.3 * told["plain"][1] if options else 1e-3), told


@question
def merged_with_lora() -> Any:
    """Two models, each with a LoRA, merged; what saving says; and both as they were afterwards."""
    truth = nodes_model_merging.ModelMergeSimple().merge(
        with_stock_lora(dense(), "kohya.safetensors", 0.7),
        with_stock_lora(other_models()[1], "diffusers.safetensors", 0.5),
        0.6,
    )[0]
    one, two = ours(), other_models()[0]
    before = run(one), run(two)
    parts = with_own_lora(one, "kohya.safetensors", 0.7), with_own_lora(two, "diffusers.safetensors", 0.5)
    together = nodes_model_merging.ModelMergeSimple().merge(*parts, 0.6)[0]
    told = {"apart": apart(run(together), run(truth))}
    told["saved"] = refusal(lambda: comfy.sd.save_checkpoint(str(folder / "kontext_merged.safetensors"), together))
    told["again"] = apart(run(together), run(truth))
    told["restored"] = [bool(torch.equal(run(model), out)) for model, out in zip((one, two), before, strict=True)]
    # A model that is whole on the CPU has nothing of it written into its tensors.
    told["dense"] = sum(bool(layer.patches) for model in (one, two) for _, layer in layers_of(model))
    return told


def test_merged_models_that_lose_their_lora_or_keep_it_are_noticed(ask: Ask) -> None:
    told = ask(merged_with_lora)
    # ComfyUI writes merged biases and norms in the file's own bfloat16.
    assert max(told["apart"], told["again"]) < 1e-3, told
    assert "Save the model without" in told["saved"]
    assert told["restored"] == [True, True] and told["dense"] == 0


@question
def wrapped_with_lora() -> Any:
    """A LoRA and a function around the same weight."""
    told = {}
    for name, change in changes(with_own_lora).items():
        figures = []
        for memory in 1.0, 0.0:
            models = change(ours()).clone(), changes(with_stock_lora)[name](dense()).clone()
            for model in models:
                model.add_weight_wrapper("diffusion_model.single_blocks.0.linear1.weight", lambda weight: weight * 2)
            truth = run(models[1], steps=2)
            if memory:
                figures.append(apart(run(models[0], steps=2), truth))
            else:
                comfy.model_management.load_models_gpu([models[1]])
                step = forward(models[1])
                models[0].load(torch.device("cpu"), lowvram_model_memory=1)
                figures.append(apart(forward(models[0]), step))
                models[0].detach()
        told[name] = figures
    return told


def test_a_lora_that_is_lost_where_something_else_wraps_the_weight_is_noticed(ask: Ask) -> None:
    told = ask(wrapped_with_lora)
    assert max(max(figures) for figures in told.values()) < 1e-3, told


@question
def bypassed() -> Any:
    """ComfyUI's own way of computing a LoRA beside the layers, alone and with ours."""
    state = comfy.utils.load_torch_file(str(folder / "loras" / "kohya.safetensors"), safe_load=True)
    model, truth = ours(), dense()
    plain = run(model, steps=2)
    beside = comfy.sd.load_bypass_lora_for_models(model, None, state, 0.7, 0)[0]
    told = {"alone": apart(run(beside, steps=2), run(with_stock_lora(truth, "kohya.safetensors", 0.7), steps=2))}
    both = with_own_lora(beside, "diffusers.safetensors", -0.4)
    expected = with_stock_lora(with_stock_lora(truth, "kohya.safetensors", 0.7), "diffusers.safetensors", -0.4)
    told["both"] = apart(run(both, steps=2), run(expected, steps=2))
    del beside, both
    gc.collect()
    told["taken off"] = apart(run(model, steps=2), plain)
    return told


def test_a_lora_that_comfyui_bypasses_the_weights_with_and_that_differs_is_noticed(ask: Ask) -> None:
    told = ask(bypassed)
    assert max(told.values()) < 1e-3, told
