"""The compiled MODEL inside a real ComfyUI: the same picture, and no more graphs than its blocks have kinds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
import torch
from kontext_bridge.kontext.fp8 import compilers
from questions import FP8, INSIDE, Ask, question

if INSIDE:
    import comfy.sd
    from inside import REFERENCE, apart, conditioning, dense, folder, ours, random, refusal, run, with_stock_lora
    from kontext_bridge.kontext.comfyui import load as comfyui
    from torch._dynamo.testing import CompileCounter

pytestmark = pytest.mark.comfyui


@question
def graphs() -> Any:
    """How many graphs each new thing takes, and how far the pictures are from those that are not compiled."""
    counter, real = CompileCounter(), torch.compile

    def compiled(*arguments: Any, backend: Any = None, **options: Any) -> Any:
        return real(*arguments, backend=counter, **options)

    def of_rank(model: Any, rank: int, strength: float) -> Any:
        state = {}
        for block, outputs in ("double_blocks.0.img_attn.qkv", 3), ("single_blocks.0.linear2", 1):
            layer = model.model.diffusion_model.get_submodule(block)
            state[f"diffusion_model.{block}.lora_A.weight"] = random(rank, layer.in_features, seed=rank)
            state[f"diffusion_model.{block}.lora_B.weight"] = 0.1 * random(layer.out_features, rank, seed=outputs)
        return comfy.sd.load_lora_for_models(model, None, state, strength, 0)[0]

    with (
        mock.patch.object(torch, "compile", compiled),
        mock.patch.dict(compilers._MISSING, {torch.device("cpu"): None}),
    ):
        torch.compiler.reset()
        path = folder / "ours" / "kontext_legacy.safetensors"
        models = {"plain": ours(), "compiled": comfyui.load(path, compiled=True).model, "truth": dense()}

        def both(change: Callable[[Any], Any] = lambda model: model, **given: Any) -> Any:
            before = counter.frame_count
            pictures = [run(change(model), steps=2, **given) for model in models.values()]
            plain, made, truth = pictures
            return {
                "graphs": counter.frame_count - before,
                "apart": apart(made, plain),
                "astray": [apart(made, truth), apart(plain, truth)],
            }

        two = conditioning(REFERENCE, random(1, 16, 12, 6, seed=6))
        return {
            "first": both(),
            "again": both(),
            "second size": both(size=(12, 12)),
            "third size": both(size=(8, 16)),
            "two references": both(positive=two),
            "first LoRA": both(lambda model: of_rank(model, 4, 1.0)),
            "another strength": both(lambda model: of_rank(model, 4, 0.7)),
            "a third strength": both(lambda model: of_rank(model, 4, -0.3)),
            "another rank": both(lambda model: of_rank(model, 8, 0.7)),
            "a third rank": both(lambda model: of_rank(model, 12, 0.5)),
            "two LoRA": both(lambda model: of_rank(of_rank(model, 4, 0.7), 6, 0.2)),
            "stock LoRA": both(lambda model: with_stock_lora(model, "kohya.safetensors", 0.4)),
            "without": both(),
        }


SEEN = ("again", "third size", "another strength", "a third strength", "another rank", "a third rank", "without")


@pytest.mark.parametrize("options", [(), (FP8,)], ids=["stored", "multiplied"])
@pytest.mark.parametrize("what", SEEN)
def test_what_compiles_again_though_its_kind_has_been_seen_is_noticed(
    what: str, options: tuple[str, ...], ask: Ask
) -> None:
    assert ask(graphs, *options)[what]["graphs"] == 0


@pytest.mark.parametrize("options", [(), (FP8,)], ids=["stored", "multiplied"])
def test_a_compiled_model_that_gives_another_picture_is_noticed(options: tuple[str, ...], ask: Ask) -> None:
    told = ask(graphs, *options)
    assert told["first"]["graphs"] > 0
    if not options:
        assert {what: one["apart"] for what, one in told.items() if one["apart"] > 1e-5} == {}
        return
    # Rounding to FP8 makes much of a last digit: the compiled picture must be as near to the truth as the other.
    strayed = {what: one["astray"] for what, one in told.items()}
    assert {what: (made, plain) for what, (made, plain) in strayed.items() if made > 1.15 * plain} == {}


@question
def without_a_compiler() -> Any:
    with mock.patch.dict(compilers._MISSING, {torch.device("cpu"): "there is no g++"}):
        path = folder / "ours" / "kontext_legacy.safetensors"
        return refusal(lambda: comfyui.load(path, compiled=True))


def test_compiling_where_nothing_compiles_is_refused_before_the_model_is_loaded(ask: Ask) -> None:
    told = ask(without_a_compiler)
    assert "there is no g++" in told and "switch compile off" in told
