"""FP8 products inside a real ComfyUI: which one is taken, what is said of it, and what becomes of one that fails."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from kontext_bridge.kontext.edit import LatentEdit
from kontext_bridge.kontext.fp8 import devices
from kontext_bridge.kontext.fp8.compute import Compute
from questions import FP8, INSIDE, SAME, Ask, question
from safetensors.torch import load_file, save_file
from tiny_models import LAYOUTS

if INSIDE:
    import comfy.model_management
    import comfy.sd
    from inside import REFERENCE, apart, conditioning, dense, folder, ours, random, refusal, run
    from kontext_bridge.kontext.comfyui import load as comfyui
    from kontext_bridge.kontext.comfyui import ops
    from kontext_bridge.kontext.comfyui import sampler as comfyui_sampler

pytestmark = pytest.mark.comfyui


@question
def without_row_wise_products() -> Any:
    """How far a tensor-wise product strays in each layout, where torch was built with no other."""
    real = torch._scaled_mm

    def tensor_wise(*arguments: Any, scale_a: Any, scale_b: Any, **options: Any) -> Any:
        if scale_a.numel() > 1 or scale_b.numel() > 1:
            raise NotImplementedError("row-wise is not built here")
        return real(*arguments, scale_a=scale_a, scale_b=scale_b, **options)

    known = dict(devices._KNOWN)
    devices._KNOWN.clear()
    torch._scaled_mm = tensor_wise
    try:
        told = {layout: apart(run(ours(layout)), run(dense(layout))) for layout in LAYOUTS}
        return {"apart": told, "info": comfyui.load(folder / "ours" / "kontext_legacy.safetensors").description}
    finally:
        torch._scaled_mm = real
        devices._KNOWN.clear()
        devices._KNOWN.update(known)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_tensor_wise_products_that_stray_in_one_layout_are_noticed(layout: str, ask: Ask) -> None:
    assert ask(without_row_wise_products, FP8)["apart"][layout] < 1e-2


@question
def description() -> Any:
    return comfyui.load(folder / "ours" / "kontext_legacy.safetensors").description


def test_a_product_that_is_taken_without_a_word_why_is_noticed(ask: Ask) -> None:
    told = ask(without_row_wise_products, FP8)["info"]
    assert "FP8 product: tensor-wise" in told and "row-wise is not built here" in told
    assert "No FP8 arithmetic" in ask(description)


@question
def broken_off() -> Any:
    """What is said of a file whose download was given its room and broke off."""
    tensors = load_file(folder / "ours" / "kontext_legacy.safetensors")
    tensors["single_blocks.1.linear2.weight"].view(torch.uint8).zero_()
    save_file(tensors, folder / "kontext_broken_off.safetensors")
    return comfyui.load(folder / "kontext_broken_off.safetensors").description


def test_a_model_with_layers_of_zeros_that_is_loaded_without_a_word_is_noticed(ask: Ask) -> None:
    assert "single_blocks.1.linear2" in ask(broken_off) and "not downloaded whole" in ask(broken_off)


@question
def a_product_that_fails_later() -> Any:
    """A picture of a model whose FP8 products fail once it is loaded, and what is said where FP8 was demanded."""
    real, known = torch._scaled_mm, dict(devices._KNOWN)

    def fails(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no kernel for this GPU")

    model, demanded = ours(), ours(compute=Compute.FP8)
    torch._scaled_mm = fails
    try:
        told = {"apart": apart(run(model), run(dense()))}
        devices._KNOWN.clear()
        devices._KNOWN.update(known)
        return told | {"demanded": refusal(lambda: run(demanded))}
    finally:
        torch._scaled_mm = real
        devices._KNOWN.clear()
        devices._KNOWN.update(known)


def test_a_product_that_fails_after_loading_and_ends_the_edit_is_noticed(ask: Ask) -> None:
    told = ask(a_product_that_fails_later, FP8)
    assert told["apart"] < SAME
    assert "no kernel for this GPU" in told["demanded"]


@question
def without_8_bit_floats() -> Any:
    """What is said of an FP8 file on a device that has none, and how far a 16-bit one strays there."""
    devices._HOLDS[torch.device("cpu")] = False
    try:
        loaded = comfyui.load(folder / "ours" / "kontext_bfloat16.safetensors")
        path = str(folder / "ours" / "kontext_bfloat16.safetensors")
        truth = comfy.sd.load_diffusion_model(path, model_options={"dtype": torch.float32})
        kept = {str(p.dtype) for p in loaded.model.model.parameters() if p.ndim == 2}
        told = {"apart": apart(run(loaded.model), run(truth)), "kept": sorted(kept), "info": loaded.description}
        told |= {"refused": refusal(ours)}
        del devices._HOLDS[torch.device("cpu")]
        model = ours()
        devices._HOLDS[torch.device("cpu")] = False
        return told | {"sent later": refusal(lambda: run(model))}
    finally:
        del devices._HOLDS[torch.device("cpu")]


def test_fp8_on_a_device_without_8_bit_floats_is_noticed(ask: Ask) -> None:
    told = ask(without_8_bit_floats)
    assert "has no 8-bit floats" in told["refused"] and "16-bit file" in told["refused"]
    assert told["apart"] < SAME and told["kept"] == ["torch.bfloat16"]
    assert "no 8-bit floats" in told["info"]
    assert "has no 8-bit floats" in told["sent later"] and "Select Model Device" in told["sent later"]


@question
def a_cpu_beside_an_amd_gpu() -> Any:
    """The product of a CPU where ComfyUI has found by itself that the GPU multiplies FP8."""
    real, refused = comfy.model_management.SUPPORT_FP8_OPS, dict(ops._REFUSED)
    ops._REFUSED.clear()
    comfy.model_management.SUPPORT_FP8_OPS = True
    try:
        return ops.fp8_on(torch.device("cpu")).product is not None
    finally:
        comfy.model_management.SUPPORT_FP8_OPS = real
        ops._REFUSED.clear()
        ops._REFUSED.update(refused)


def test_a_cpu_that_multiplies_fp8_for_the_gpu_beside_it_can_is_noticed(ask: Ask) -> None:
    assert ask(a_cpu_beside_an_amd_gpu) is False
    assert ask(a_cpu_beside_an_amd_gpu, FP8) is True


@question
def guided_alone_and_in_a_batch() -> Any:
    pictures = torch.cat([REFERENCE, 3 * random(1, 16, 8, 12, seed=8)])

    def sampled(pictures: torch.Tensor, seed: int) -> torch.Tensor:
        edit = LatentEdit(96, 64, steps=2, batch=len(pictures), true_cfg=3.0)
        negative = conditioning(seed=9)
        return comfyui_sampler.sample(ours(), edit, conditioning(), [pictures], seed=seed, negative=negative)

    return apart(sampled(pictures, 3)[1:], sampled(pictures[1:], 4))


@pytest.mark.parametrize("options", [(), (FP8,)], ids=["stored", "multiplied"])
def test_a_picture_that_depends_on_its_batch_is_noticed(options: tuple[str, ...], ask: Ask) -> None:
    assert ask(guided_alone_and_in_a_batch, *options) < SAME
