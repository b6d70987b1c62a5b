"""Our sampler inside a real ComfyUI: the same picture as ComfyUI's, and errors that say what to do."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from kontext_bridge.kontext.edit import LatentEdit
from kontext_bridge.kontext.schedule import schedule
from questions import INSIDE, SAME, Ask, question

if INSIDE:
    import comfy.model_management
    import comfy.sample
    import comfy.samplers
    from inside import POSITIVE, REFERENCE, apart, conditioning, dense, ours, random, refusal
    from kontext_bridge.kontext.comfyui import patches as comfyui_patches
    from kontext_bridge.kontext.comfyui import sampler as comfyui_sampler

pytestmark = pytest.mark.comfyui


@question
def own_sampler() -> Any:
    edit = LatentEdit(96, 64, steps=4)
    ours_out = comfyui_sampler.sample(ours(), edit, conditioning(), [REFERENCE], seed=11)
    noise = torch.randn(1, 16, 8, 12, generator=torch.Generator().manual_seed(11))
    sampler = comfy.samplers.sampler_object("euler")
    theirs = comfy.sample.sample_custom(
        dense(), noise, 1.0, sampler, schedule(4, 24), POSITIVE, POSITIVE, torch.zeros_like(noise), seed=11
    )
    return apart(ours_out, theirs)


def test_our_sampler_that_strays_from_comfyuis_on_the_same_schedule_is_noticed(ask: Ask) -> None:
    assert ask(own_sampler) < SAME


@question
def own_sampler_alone_and_in_a_batch() -> Any:
    pictures = torch.cat([REFERENCE, random(1, 16, 8, 12, seed=8)])
    both = comfyui_sampler.sample(ours(), LatentEdit(96, 64, steps=2, batch=2), conditioning(), [pictures], seed=3)
    alone = comfyui_sampler.sample(ours(), LatentEdit(96, 64, steps=2), conditioning(), [pictures[1:]], seed=4)
    return apart(both[1:], alone)


def test_a_picture_of_a_batch_that_cannot_be_made_again_alone_is_noticed(ask: Ask) -> None:
    assert ask(own_sampler_alone_and_in_a_batch) < SAME


@question
def own_sampler_refusals() -> Any:
    model = ours()

    def sampled(references=(REFERENCE,), positive=None, **settings):
        edit = LatentEdit(96, 64, **{"steps": 2, **settings})
        return lambda: comfyui_sampler.sample(model, edit, positive or conditioning(), references, seed=0)

    nonsense = conditioning()
    nonsense[0][0] = nonsense[0][0] * float("nan")
    return {
        "cfg": refusal(sampled(true_cfg=3.0)),
        "channels": refusal(sampled([torch.zeros(1, 4, 8, 8)])),
        "batch": refusal(sampled([torch.zeros(3, 16, 8, 8)])),
        "nan": refusal(sampled(positive=nonsense)),
    }


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("cfg", "Connect one, or set cfg to 1"),
        ("channels", "Encode the picture with FLUX's own VAE"),
        ("batch", "Reference 1 has 3 pictures for a batch of 1"),
        ("nan", "NaN or infinity"),
    ],
)
def test_a_sampling_that_cannot_be_right_is_refused_with_the_reason(case: str, words: str, ask: Ask) -> None:
    assert words in ask(own_sampler_refusals)[case]


@question
def out_of_memory() -> Any:
    model, told = ours(), []
    real = comfy.model_management.get_free_memory
    comfy.model_management.get_free_memory = lambda *a, **k: 3e8
    try:
        for error in (
            torch.OutOfMemoryError("no room"),
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
            RuntimeError("[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: not enough memory: you tried to"),
        ):

            def full(*_, error=error, **__):
                raise error

            changed = model.clone()
            changed.add_wrapper_with_key("diffusion_model", "test", full)
            edit = LatentEdit(1024, 1024, steps=2)
            told.append(
                refusal(lambda m=changed, e=edit: comfyui_sampler.sample(m, e, conditioning(), [REFERENCE], seed=0))
            )
        return told
    finally:
        comfy.model_management.get_free_memory = real


def test_running_out_of_memory_without_saying_what_is_missing_is_noticed(ask: Ask) -> None:
    told = ask(out_of_memory)
    assert len(told) == 3
    for text in told:
        assert "1024x1024" in text and "0.3 GB are free" in text and "--lowvram" in text


@question
def free_memory_after_a_failed_step() -> Any:
    model, alive = ours(), []
    real = comfy.model_management.get_free_memory

    def full(x, *_):
        activations.append(weakref.ref(x))
        raise torch.OutOfMemoryError("no room")

    def free(*arguments):
        if not activations:
            return real(*arguments)
        alive.extend(x() is not None for x in activations)
        return 3e8

    activations = []
    dict(comfyui_patches.layers_of(model))["diffusion_model.single_blocks.1.linear2"]._multiply = full
    comfy.model_management.get_free_memory = free
    try:
        refusal(lambda: comfyui_sampler.sample(model, LatentEdit(96, 64, steps=2), conditioning(), [REFERENCE], seed=0))
    finally:
        comfy.model_management.get_free_memory = real
    return alive


def test_free_memory_that_counts_the_failed_step_as_taken_is_noticed(ask: Ask) -> None:
    alive = ask(free_memory_after_a_failed_step)
    assert alive and not any(alive)
