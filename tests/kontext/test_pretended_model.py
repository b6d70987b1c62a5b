"""The whole transformer at its full width on pretended GPUs: where its tensors are, and what a step costs.

Counted, not measured: kernels, and the bytes that each reads and writes (tests/pretended.py). What is counted inside
ComfyUI is in tests/local/test_model_pretended.py.
"""

from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from functools import cache

import full_size
import pytest
import torch
from cards import CARDS, MAC, RTX_20, RTX_30, RTX_40, RTX_40_ON_WINDOWS, RTX_40_WITH_TRITON
from kontext_bridge.kontext.checkpoint.layers import KONTEXT, Naming
from kontext_bridge.kontext.errors import UnsupportedDevice
from kontext_bridge.kontext.fp8.compute import Compute
from kontext_bridge.kontext.standalone import blocks, sampler
from kontext_bridge.kontext.standalone.denoiser import Conditioning, Denoiser
from kontext_bridge.kontext.standalone.lora import attach, linears_of
from kontext_bridge.kontext.standalone.mount import mount
from kontext_bridge.standin.picture import SIZES
from pretended import pretended

pytest.importorskip("diffusers")

FEW_BLOCKS = replace(KONTEXT, doubles=1, singles=2)
TEXT = 512


@contextmanager
def mounted(card, *, size=FEW_BLOCKS, dtype=full_size.E4M3, ranks=(), **options):
    """A model on the card, with LoRA of these ranks."""
    with torch.inference_mode(), pretended(card) as gpu:
        model = mount(full_size.checkpoint(dtype, size=size), device=gpu.device, **options)
        for number, rank in enumerate(ranks):
            attach(linears_of(model), Naming.DIFFUSERS, full_size.lora(rank, f"style {number}", size), 0.8)
        yield gpu, model


def step(gpu, model, *, height=128, width=128, references=1, batch=1):
    """What a later step of an edit takes, moving nothing and reading nothing back. height, width: the latent's."""
    conditioning = Conditioning(torch.empty(1, TEXT, KONTEXT.context), torch.empty(1, KONTEXT.pooled))
    others = [torch.empty(1, 16, height, width) for _ in range(references)]
    denoiser = Denoiser(model, conditioning, others, height, width, torch.linspace(1, 0, 5), 2.5)
    tokens = gpu.empty(batch, height * width // 4, 64)
    denoiser(tokens, 0)
    with gpu.counting() as counted:
        out = denoiser(tokens, 1)
    assert counted.moves == counted.waits == []
    assert out.shape == tokens.shape and out.dtype == torch.float32 and out.device == gpu.device
    return counted


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_a_step_that_moves_a_tensor_or_reads_one_back_is_noticed_on_every_gpu(card):
    with mounted(card) as (gpu, model):
        plain = step(gpu, model)
        for rank in 16, 4:
            attach(linears_of(model), Naming.DIFFUSERS, full_size.lora(rank, f"rank {rank}", FEW_BLOCKS), 0.8)
        beside = step(gpu, model)
    for counted in plain, beside:
        assert any(kernel.name == "_scaled_mm" for kernel in counted.kernels) == (card.capability >= (8, 9))
    assert len(beside.kernels) > len(plain.kernels)


@pytest.mark.parametrize("card", [RTX_30, RTX_40, RTX_40_ON_WINDOWS], ids=lambda card: card.name)
def test_every_size_number_of_references_and_batch_is_taken(card):
    with mounted(card, size=replace(KONTEXT, doubles=1, singles=1)) as (gpu, model):
        for width, height in SIZES if card is RTX_40 else SIZES[:2]:
            step(gpu, model, height=height // 8, width=width // 8)
        for references in (0, 2, 8):
            step(gpu, model, references=references)
        step(gpu, model, batch=2)


@pytest.mark.parametrize("card", [RTX_40, RTX_40_WITH_TRITON, RTX_40_ON_WINDOWS], ids=lambda card: card.name)
def test_every_product_of_a_batch_is_that_of_a_picture_alone(card):
    """More rows at once may differ in the last digit, and where some products are FP8, all must be alike."""
    with mounted(card, ranks=(16,)) as (gpu, model):
        alone, both = (products(step(gpu, model, batch=batch)) for batch in (1, 2))
    assert both == {kind: 2 * number for kind, number in alone.items()}


def products(counted):
    """How many products there are of each name and size, in bytes."""
    return Counter(
        kernel for kernel in counted.kernels if kernel.name in ("mm", "addmm", "addmm_", "bmm", "_scaled_mm")
    )


@pytest.mark.parametrize("card", [RTX_20, RTX_40], ids=lambda card: card.name)
def test_modulation_that_is_kept_in_the_computers_memory_costs_a_step_nothing(card):
    with mounted(card, modulation_device="cpu") as (gpu, model):
        step(gpu, model)


@pytest.mark.parametrize(("card", "dtype"), [(RTX_20, torch.float16), (RTX_30, torch.bfloat16)], ids=["20", "30"])
def test_attention_that_torch_would_write_out_in_full_on_an_older_gpu_is_noticed(card, dtype, monkeypatch):
    real, seen = blocks.functional.scaled_dot_product_attention, set()

    def attend(*of_each):
        seen.update(tensor.dtype for tensor in of_each)
        return real(*of_each)

    with mounted(card) as (gpu, model):
        monkeypatch.setattr(blocks.functional, "scaled_dot_product_attention", attend)
        step(gpu, model)
    assert seen == {dtype}


def test_a_16_bit_file_becomes_fp8_on_a_gpu_and_stays_as_it_is_on_a_mac():
    with mounted(RTX_40, dtype=torch.bfloat16) as (gpu, model):
        assert any(kernel.name == "_scaled_mm" for kernel in step(gpu, model).kernels)
    with pytest.raises(UnsupportedDevice, match="no 8-bit floats"), mounted(MAC):
        pass
    for quantise in False, True:
        with mounted(MAC, dtype=torch.bfloat16, quantise=quantise) as (gpu, model):
            step(gpu, model)


# Kernels, and bytes in 1e9, of a step at 1024x1024 with one reference: no more than these. Lower them when they fall.
CEILINGS = {
    "multiplied row-wise": (RTX_40, (), 6682, 282.5),
    "multiplied tensor-wise": (RTX_40_ON_WINDOWS, (), 7215, 286.7),
    "stored": (RTX_30, (), 1946, 268.2),
    "multiplied, LoRA": (RTX_40, (16,), 7518, 360.5),
    "stored, LoRA": (RTX_30, (16,), 2782, 346.2),
}


@cache
def cost(card, doubles, singles, ranks=()):
    with mounted(card, size=replace(KONTEXT, doubles=doubles, singles=singles), ranks=ranks) as (gpu, model):
        counted = step(gpu, model)
    return len(counted.kernels), counted.bytes, counted.peak


def full_cost(card, ranks=()):
    """Kernels, bytes and memory of the full model's step, from models of few blocks: all of a kind cost the same."""
    few, double, single = (cost(card, *blocks, ranks) for blocks in ((1, 2), (2, 2), (1, 3)))
    more = KONTEXT.doubles - 1, KONTEXT.singles - 2
    kernels, moved = (few[i] + more[0] * (double[i] - few[i]) + more[1] * (single[i] - few[i]) for i in (0, 1))
    return kernels, moved, max(few[2], double[2], single[2])


@pytest.mark.parametrize("case", CEILINGS)
def test_a_step_that_moves_more_bytes_or_takes_more_memory_than_it_did_is_noticed(case, tables):
    card, ranks, most_kernels, most_gigabytes = CEILINGS[case]
    kernels, moved, peak = full_cost(card, ranks)
    lines = tables.setdefault("A step at 1024x1024 off ComfyUI, counted: kernels, GB moved, GB of memory", [])
    lines.append(f"{case}: {kernels}, {moved / 1e9:.1f}, {peak / 1e9:.2f}")
    assert kernels <= most_kernels and moved <= most_gigabytes * 1e9
    tokens = 2 * 128 * 128 // 4 + TEXT
    assert peak <= tokens * KONTEXT.hidden * 2 * sampler._ACTIVATIONS


def test_the_full_model_takes_what_is_reckoned_from_few_blocks():
    assert cost(RTX_30, KONTEXT.doubles, KONTEXT.singles) == full_cost(RTX_30)


def test_what_is_demanded_of_a_gpu_without_fp8_is_refused_at_the_first_step():
    with mounted(RTX_20, compute=Compute.FP8) as (gpu, model), pytest.raises(UnsupportedDevice, match="RTX 2080 Ti"):
        step(gpu, model)
