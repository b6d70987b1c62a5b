"""The MODEL inside a real ComfyUI, held to ComfyUI's own on the same numbers in float32."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from kontext_bridge.kontext.fp8.compute import Compute
from questions import FP8, INSIDE, SAME, Ask, Question, question
from tiny_models import LAYOUTS

if INSIDE:
    import comfy.model_management
    import comfy.sd
    from inside import (
        REFERENCE,
        WITH_AND_WITHOUT_LORA,
        apart,
        conditioning,
        dense,
        folder,
        forward,
        fp8_bytes,
        guided,
        ours,
        random,
        refusal,
        run,
    )
    from kontext_bridge.kontext.comfyui import load as comfyui
    from kontext_bridge.kontext.comfyui import patches as comfyui_patches
    from kontext_bridge.kontext.comfyui.ops import fp8_on

pytestmark = pytest.mark.comfyui
Figures = Callable[..., dict[str, float]]


@question
def layouts() -> Any:
    told = {}
    for layout in LAYOUTS:
        truth = run(dense(layout))
        stock = comfy.sd.load_diffusion_model(str(folder / "ours" / f"kontext_{layout}.safetensors"))
        told[layout] = {"ours": apart(run(ours(layout)), truth), "stock": apart(run(stock), truth)}
    return told


@pytest.fixture
def figures(ask: Ask, tables: dict[str, list[str]]) -> Figures:
    """How far a layout is from the same numbers in float32, with our loader and with the stock one."""

    def of(layout: str, *options: str) -> dict[str, float]:
        told = ask(layouts, *options)
        tables[" ".join(["4 steps against the same numbers in float32", *options])] = [
            f"{name.ljust(30)} {one['ours']:.1e}   stock loader {one['stock']:.1e}" for name, one in told.items()
        ]
        return dict(told[layout])

    return of


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_that_samples_another_picture_than_its_numbers_do_is_noticed(layout: str, figures: Figures) -> None:
    assert figures(layout)["ours"] < SAME


@pytest.mark.parametrize("layout", ["per_row", "diffusers_scaled"])
def test_the_stock_loader_ruins_what_is_read_right_here(layout: str, figures: Figures) -> None:
    assert figures(layout)["stock"] > 1, "the stock loader has learnt this layout: the README can say so"


@question
def products() -> Any:
    calls = []
    fp8_on(torch.device("cpu"))  # tried once a device, with products of its own
    real = torch._scaled_mm
    torch._scaled_mm = lambda *args, **options: calls.append(1) or real(*args, **options)
    try:
        forward_of = {}
        for compute in Compute.AUTO, Compute.STORAGE:
            calls.clear()
            run(ours(compute=compute), steps=1)
            forward_of[compute.value] = len(calls)
    finally:
        torch._scaled_mm = real
    return forward_of


@question
def description() -> Any:
    return comfyui.load(folder / "ours" / "kontext_legacy.safetensors").description


@question
def fp8_demanded() -> Any:
    return refusal(lambda: ours(compute=Compute.FP8))


def test_a_device_without_fp8_arithmetic_that_uses_it_all_the_same_is_noticed(ask: Ask) -> None:
    assert ask(products) == {"auto": 0, "storage": 0}
    assert "multiplied in wider numbers" in ask(description)
    assert "Set compute to auto or bf16" in ask(fp8_demanded)


@question
def twenty_steps() -> Any:
    return apart(run(ours(), steps=20), run(dense(), steps=20))


def test_fp8_arithmetic_that_is_not_used_or_strays_is_noticed(ask: Ask) -> None:
    assert ask(products, FP8) == {"auto": 21 + 11, "storage": 0}, (
        "the rows of every block layer, of one in two parts, and their mean where they come from a layer norm"
    )
    assert ask(fp8_demanded, FP8) is None
    assert ask(twenty_steps, FP8) < 5e-3


@pytest.mark.parametrize("layout", LAYOUTS)
def test_fp8_arithmetic_that_strays_in_one_layout_is_noticed(layout: str, figures: Figures) -> None:
    assert figures(layout, FP8)["ours"] < 1e-2


@pytest.mark.parametrize("layout", ["legacy", "bfloat16", "plain"])
def test_fp8_arithmetic_that_is_worse_than_the_stock_one_is_noticed(layout: str, figures: Figures) -> None:
    told = figures(layout, FP8)
    assert told["ours"] < told["stock"]


def test_a_file_that_asks_for_full_precision_and_is_multiplied_in_fp8_is_noticed(ask: Ask) -> None:
    told = ask(layouts, FP8)
    assert told["legacy_full_precision"]["ours"] < SAME
    assert told["comfy_quant_full_precision"]["ours"] < SAME


@question
def two_references() -> Any:
    both = conditioning(REFERENCE, random(1, 16, 12, 6, seed=6))
    return apart(run(ours(), both), run(dense(), both))


@question
def upscaled() -> Any:
    def twice(model):
        small = run(model)
        large = torch.nn.functional.interpolate(small, scale_factor=2)
        return run(model, start=large, denoise=0.5)

    return apart(twice(ours()), twice(dense()))


@question
def classifier_free_guidance() -> Any:
    return apart(guided(ours()), guided(dense()))


@question
def weight_wrapper() -> Any:
    def doubled(model):
        changed = model.clone()
        changed.add_weight_wrapper("diffusion_model.single_blocks.0.linear1.weight", lambda weight: weight * 2)
        return changed

    return apart(run(doubled(ours())), run(doubled(dense())))


@pytest.mark.parametrize("graph", [two_references, upscaled, classifier_free_guidance, weight_wrapper])
def test_a_stock_graph_that_gives_another_picture_is_noticed(graph: Question, ask: Ask) -> None:
    assert ask(graph) < SAME


@question
def other_samplers() -> Any:
    names = ("heun", "dpmpp_2m", "dpmpp_2s_ancestral", "uni_pc")
    return {name: apart(run(ours(), sampler=name), run(dense(), sampler=name)) for name in names}


def test_a_sampler_that_gives_another_picture_is_noticed(ask: Ask) -> None:
    assert all(figure < SAME for figure in ask(other_samplers).values())


@question
def another_model_in_between() -> Any:
    model = ours()
    first = run(model)
    comfy.model_management.unload_all_models()
    run(dense("per_row"))
    return bool(torch.equal(first, run(model)))


def test_another_model_loaded_in_between_that_leaves_a_trace_is_noticed(ask: Ask) -> None:
    assert ask(another_model_in_between) is True


@question
def loads_of_two_runs() -> Any:
    seen = []
    real = comfyui_patches._loaded
    comfyui_patches._loaded = lambda *arguments: seen.append(1) or real(*arguments)
    try:
        model = ours()
        run(model)
        run(model, conditioning(REFERENCE, seed=4))
    finally:
        comfyui_patches._loaded = real
    return len(seen)


def test_a_second_run_that_loads_the_model_again_is_noticed(ask: Ask) -> None:
    assert ask(loads_of_two_runs) == 1


@question
def low_memory() -> Any:
    told = {}
    for name, patched in WITH_AND_WITHOUT_LORA.items():
        model, truth = patched(ours()), patched(dense())
        cpu = torch.device("cpu")
        comfy.model_management.load_models_gpu([truth])
        expected = forward(truth)
        for share in (0.0, 0.5):
            model.load(cpu, lowvram_model_memory=int(model.model_size() * share) + 1)
            told[f"{name} {share}"] = apart(forward(model), expected)
            model.unpatch_model(cpu)
        model.load(cpu, full_load=True)
        told[f"{name} whole"] = apart(forward(model), expected)
        model.partially_unload(cpu, model.model_size() // 2)
        told[f"{name} half given back"] = apart(forward(model), expected)
        model.detach()
    return told


def test_a_partly_loaded_model_that_computes_something_else_is_noticed(ask: Ask) -> None:
    assert all(figure < SAME for figure in ask(low_memory).values())


@question
def dropped_while_loaded() -> Any:
    told = {}
    for name, patched in WITH_AND_WITHOUT_LORA.items():
        model = patched(ours())
        run(model)
        layers = {name: weakref.ref(layer) for name, layer in comfyui_patches.layers_of(model)}
        gc.collect()
        gc.disable()
        del model
        told[name] = [name for name, layer in layers.items() if layer() is not None]
        gc.enable()
    return told


def test_a_dropped_model_that_stays_in_memory_is_noticed(ask: Ask) -> None:
    assert ask(dropped_while_loaded) == {"plain": [], "lora": []}


@question
def cast_whole() -> Any:
    model = ours()
    before, numbers = fp8_bytes(model), run(model)
    model.model.diffusion_model.to(torch.float16).to(torch.bfloat16)
    return {"bytes": fp8_bytes(model) == before, "apart": apart(run(model), numbers)}


def test_fp8_bytes_that_a_cast_of_the_whole_model_changes_are_noticed(ask: Ask) -> None:
    assert ask(cast_whole)["bytes"] is True


@question
def built_again_for_another_gpu() -> Any:
    told = {}
    for compute in Compute.AUTO, Compute.STORAGE, Compute.FP8:
        model = ours(compute=compute)
        function, arguments = model.cached_patcher_init[:2]
        again = function(*arguments)
        plans = [[layer.plan for _, layer in comfyui_patches.layers_of(one)] for one in (model, again)]
        told[compute.value] = [bool(torch.equal(run(again), run(model))), plans[0] == plans[1]]
    return told


def test_a_model_that_comfyui_cannot_build_once_more_is_noticed(ask: Ask) -> None:
    assert ask(built_again_for_another_gpu, FP8) == {kind: [True, True] for kind in ("auto", "storage", "fp8")}
