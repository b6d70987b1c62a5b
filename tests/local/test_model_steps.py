"""What a step of the MODEL inside a real ComfyUI computes once, leaves out, and where that lies in memory."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from questions import INSIDE, SAME, Ask, question
from tiny_models import TINY

if INSIDE:
    import comfy.model_patcher
    from inside import POSITIVE, REFERENCE, apart, conditioning, guided, ours, random, run, with_stock_lora
    from kontext_bridge.kontext.comfyui import patches as comfyui_patches

pytestmark = pytest.mark.comfyui


@question
def foreseen_steps() -> Any:
    def modulation_runs(run_model, model):
        seen = []
        steps = model.model.diffusion_model.kontext_bridge_steps
        real = steps.look_up

        def counting(layer, x, compute):
            return real(layer, x, lambda rows: seen.append(rows[..., 0].numel()) or compute(rows))

        steps.look_up = counting
        out = run_model(model)
        steps.look_up = real
        return out, seen

    def without(model):
        changed = model.clone()
        changed.remove_wrappers_with_key("diffusion_model", "kontext_bridge")
        return changed

    def replaced(model):
        changed = model.clone()
        changed.set_model_patch_replace(lambda args, extra: extra["original_block"](args), "dit", "double_block", 0)
        return changed

    model = ours()
    first, once = modulation_runs(run, model)
    _, again = modulation_runs(lambda model: run(model, steps=4), model)
    more, other = modulation_runs(lambda model: run(model, conditioning(REFERENCE, seed=4)), model)
    aside, every = modulation_runs(lambda model: run(replaced(model)), model)
    between = modulation_runs(lambda model: run(model, sampler="dpm_2"), model)[0]
    stronger = [[text, {**options, "guidance": 5.0}] for text, options in POSITIVE]
    run(model)
    guided_more = run(model, stronger)
    return {
        "another guidance": [apart(guided_more, run(without(model), stronger)), apart(guided_more, first)],
        "rows a layer": sorted(set(once)),
        "layers": len(once),
        "again": len(again),
        "another prompt": [len(other), apart(more, run(without(model), conditioning(REFERENCE, seed=4)))],
        "aside": [sorted(set(every)), len(every), apart(aside, first)],
        "apart": apart(first, run(without(model))),
        "unannounced levels": apart(between, run(without(model), sampler="dpm_2")),
        "guided": apart(guided(model), guided(without(model))),
    }


def test_modulation_that_is_computed_again_in_every_step_is_noticed(ask: Ask) -> None:
    told = ask(foreseen_steps)
    assert told["rows a layer"] == [4], "all steps of a run at once"
    assert told["layers"] == 7, "each modulation layer once"
    assert told["again"] == 0, "nothing for another seed"
    assert told["another prompt"][0] == 7


def test_foreseen_modulation_that_changes_the_picture_is_noticed(ask: Ask) -> None:
    told = ask(foreseen_steps)
    assert max(told["apart"], told["guided"], told["another prompt"][1], told["unannounced levels"]) < SAME


def test_modulation_that_was_foreseen_for_another_guidance_is_noticed(ask: Ask) -> None:
    strayed, changed = ask(foreseen_steps)["another guidance"]
    assert strayed < SAME and changed > 1e-4


@question
def foreseen_in_16_bits() -> Any:
    model = ours().clone()
    model.set_model_compute_dtype(torch.bfloat16)
    without = model.clone()
    without.remove_wrappers_with_key("diffusion_model", "kontext_bridge")
    expected = run(without, steps=8)
    return {"apart": apart(run(model, steps=8), expected), "rounded": apart(expected, run(ours(), steps=8))}


def test_foreseen_modulation_that_is_rounded_otherwise_in_16_bits_is_noticed(ask: Ask) -> None:
    told = ask(foreseen_in_16_bits)
    assert told["rounded"] > 1e-4, "the steps were taken in 16 bits"
    assert told["apart"] == 0


def test_a_replaced_block_that_gets_foreseen_modulation_is_noticed(ask: Ask) -> None:
    rows, calls, figure = ask(foreseen_steps)["aside"]
    assert rows == [1] and calls == 7 * 4
    assert figure < SAME


@question
def last_block() -> Any:
    def rows_of(model, *inputs):
        seen = []
        layers = dict(comfyui_patches.layers_of(model))
        for name in "linear1", "linear2":
            layer = layers[f"diffusion_model.single_blocks.1.{name}"]
            real = layer._multiply

            def counting(x, weight, *rest, real=real, name=name):
                seen.append([name, x.shape[1], weight.shape[0]])
                return real(x, weight, *rest)

            layer._multiply = counting
        out = run(model, *inputs, steps=1)
        for name in "linear1", "linear2":
            del layers[f"diffusion_model.single_blocks.1.{name}"]._multiply
        return out, seen

    def patched(model):
        changed = model.clone()
        changed.set_model_attn1_output_patch(lambda out, options: out)
        return changed

    model, plain = ours(), []
    both = conditioning(REFERENCE, random(1, 16, 11, 6, seed=6))
    for positive in (conditioning(), POSITIVE, both):
        out, seen = rows_of(model, positive)
        full, every = rows_of(patched(model), positive)
        plain.append({"seen": seen, "every": every, "apart": apart(out, full)})
    lora = with_stock_lora(model, "kohya.safetensors")
    return {"plain": plain, "lora": apart(rows_of(lora, both)[0], rows_of(patched(lora), both)[0])}


def test_rows_of_the_last_block_that_nobody_reads_and_are_computed_are_noticed(ask: Ask) -> None:
    told = ask(last_block)
    text, picture = 7, 4 * 6
    for found, references in zip(told["plain"], (0, 4 * 6, 4 * 6 + 6 * 3), strict=True):
        rows = text + picture + references
        wide = TINY.hidden
        query_key_value, rest = ["linear1", rows, 3 * wide], ["linear1", picture, 4 * wide]
        assert found["seen"] == [query_key_value, rest, ["linear2", picture, wide]]
        every = [["linear1", rows, 7 * wide], ["linear2", rows, wide]]
        assert found["every"] == every, "left alone where a patch looks on"
        assert found["apart"] < SAME
    assert told["lora"] < SAME


@question
def last_in_dynamic_vram() -> Any:
    model = ours()
    asked = "get_dynamic_vram__units" in inspect.getsource(comfy.model_patcher)
    first, last = model.model.get_dynamic_vram__units()
    names = {id(layer): name for name, layer in comfyui_patches.layers_of(model)}
    return {"asked": asked, "first": len(first), "last": sorted(names[id(layer)] for layer in last)}


def test_modulation_that_takes_room_from_what_is_read_in_every_step_is_noticed(ask: Ask) -> None:
    told = ask(last_in_dynamic_vram)
    assert told["first"] == 0 and len(told["last"]) == 2 * TINY.doubles + TINY.singles + 1
    assert all("mod" in name for name in told["last"])
    if not told["asked"]:
        pytest.skip("this ComfyUI's memory manager does not ask")
