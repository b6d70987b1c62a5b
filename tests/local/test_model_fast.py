"""Approximations on a MODEL inside a real ComfyUI: with its samplers, batches, guidance, LoRA and others' patches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from questions import INSIDE, SAME, Ask, question

if INSIDE:
    from types import SimpleNamespace

    import torch
    from inside import (
        REFERENCE,
        apart,
        conditioning,
        dense,
        folder,
        guided,
        ours,
        random,
        refusal,
        run,
        with_stock_lora,
    )
    from kontext_bridge.kontext.comfyui import sampler as comfyui_sampler
    from kontext_bridge.kontext.comfyui.fast_model import NodeWishes, with_fast
    from kontext_bridge.kontext.comfyui.lora import with_lora
    from kontext_bridge.kontext.edit import LatentEdit
    from kontext_bridge.kontext.fast.wishes import Wishes
else:
    import torch
    from kontext_bridge.kontext.checkpoint.reading import read_checkpoint
    from kontext_bridge.kontext.edit import LatentEdit
    from kontext_bridge.kontext.fast.tally import Tally
    from kontext_bridge.kontext.fast.wishes import Wishes
    from kontext_bridge.kontext.fp8.compute import Compute
    from kontext_bridge.kontext.standalone.denoiser import Conditioning
    from kontext_bridge.kontext.standalone.mount import mount
    from kontext_bridge.kontext.standalone.sampler import sample

pytestmark = pytest.mark.comfyui

ANYTHING = 0.99


def corner() -> Any:
    mask = torch.zeros(1, 64, 96)
    mask[:, :16, :16] = 1
    return mask


# What each says of itself when an edit of five steps is done; the same inside ComfyUI and outside.
OPTIONS: dict[str, dict[str, Any]] = {
    "cache": {"cache": ANYTHING},
    "smaller": {"smaller": 2.0},
    "mask": {"settled": ANYTHING, "mask": corner()},
    "all": {"cache": ANYTHING, "smaller": 2.0, "settled": ANYTHING, "mask": corner()},
}


@question
def by_our_sampler() -> Any:
    edit, told = LatentEdit(96, 64, steps=5), []

    def sampled(model):
        return comfyui_sampler.sample(model, edit, conditioning(), [REFERENCE], seed=11)

    def fast(wishes):
        latent = sampled(with_fast(ours(), NodeWishes(Wishes(**wishes), told.append)))
        return latent.flatten().tolist(), told[-1]

    return {"exact": [sampled(ours()).flatten().tolist(), []], **{name: fast(one) for name, one in OPTIONS.items()}}


@pytest.mark.parametrize("name", ["exact", *OPTIONS])
def test_an_approximation_that_is_another_inside_comfyui_than_off_it_is_noticed(
    name: str, ask: Ask, models: Path
) -> None:
    def random(*shape: int, seed: int) -> torch.Tensor:
        return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))

    latent, lines = ask(by_our_sampler)[name]
    checkpoint = read_checkpoint(models / "ours" / "kontext_legacy.safetensors")
    model = mount(checkpoint, dtype=torch.float32, compute=Compute.STORAGE)
    prompt = Conditioning(random(1, 7, 64, seed=2), random(1, 32, seed=1))
    # FLUX's latents are scaled on the way into the model, and back on the way out.
    scale, shift = 0.3611, 0.1159
    reference = (random(1, 16, 8, 12, seed=5) - shift) * scale
    tally = Tally()
    wishes = Wishes(**OPTIONS.get(name, {}))
    here = sample(model, LatentEdit(96, 64, 5, seed=11), prompt, [reference], fast=wishes, tally=tally)
    there = torch.tensor(latent).view(here.shape)
    assert (here / scale + shift - there).norm() < 1e-3 * there.norm()
    assert not wishes or lines == tally.said(None)
    assert not wishes or tally.saved > 0.05


@question
def in_every_setting() -> Any:
    told: list[Any] = []

    def fast(model, *, measure=False, vae=None, **wishes):
        return with_fast(model, NodeWishes(Wishes(**wishes), told.append, measure, vae))

    def lines():
        return " ".join(told[-1])

    def both(way, model=None, **wishes):
        model = model or ours()
        latent = way(fast(model, **wishes))
        return [apart(latent, way(model)), lines()]

    def two(model):
        return run(model, start=torch.zeros(2, 16, 8, 12))

    def replaced(model):
        changed = model.clone()
        changed.set_model_patch_replace(
            lambda args, extra: seen.append(1) or extra["original_block"](args), "dit", "single_block", 0
        )
        return changed

    seen: list[int] = []
    model = ours()
    exact = run(model)
    settings = {
        "never": [apart(run(fast(model, cache=1e-9)), exact), lines()],
        "whole mask": [apart(run(fast(model, settled=ANYTHING, mask=torch.ones(1, 8, 8))), exact), lines()],
        "cache": both(run, cache=ANYTHING),
        "two calls a step": both(lambda one: run(one, sampler="heun"), cache=ANYTHING),
        "guided": both(guided, cache=ANYTHING, settled=ANYTHING, mask=corner()),
        "batch": both(two, cache=ANYTHING, settled=ANYTHING, mask=corner(), smaller=2.0),
        "comfyui's own model": both(run, dense(), cache=ANYTHING),
    }
    plain = run(fast(model, cache=ANYTHING))
    run(fast(model, settled=ANYTHING, mask=corner()))
    told_before = len(told)
    state = {
        "again": apart(run(fast(model, cache=ANYTHING)), plain),
        "without": apart(run(model), exact),
        "silent": len(told) - told_before,
        "replaced by a second": apart(
            run(fast(fast(model, cache=ANYTHING), smaller=2.0)), run(fast(model, smaller=2.0))
        ),
        "switched off by a second": apart(run(fast(fast(model, cache=ANYTHING))), exact),
    }
    path = folder / "loras" / "kohya.safetensors"
    lora = {
        "before": run(fast(with_lora(model, path, 1.0), cache=ANYTHING)),
        "after": run(with_lora(fast(model, cache=ANYTHING), path, 1.0)),
        "stock": run(with_stock_lora(fast(model, cache=ANYTHING), "kohya.safetensors")),
    }
    others = run(fast(replaced(model), cache=ANYTHING, settled=ANYTHING, mask=corner()))
    calls, others_told = len(seen), lines()
    run(fast(model, measure=True, cache=ANYTHING))
    measured = told[-1]
    run(fast(model, measure=True, cache=1e-9), sampler="euler_ancestral")
    return {
        "settings": settings,
        "state": state,
        "lora": [
            apart(lora["after"], lora["before"]),
            apart(lora["stock"], lora["before"]),
            apart(lora["before"], plain),
        ],
        "others": [calls, apart(others, exact), others_told],
        "measured": measured,
        "apart as measured": apart(plain, exact),
        "nothing left out, measured": told[-1],
        "decoded": _decoded(fast, model, told),
    }


def _decoded(fast: Any, model: Any, told: list[Any]) -> Any:
    class Vae:
        def decode(self, latent):
            return latent[:, :3].movedim(1, -1).sigmoid()

    run(fast(model, measure=True, vae=Vae(), cache=ANYTHING))
    return told[-1]


def test_an_approximation_that_leaves_nothing_out_and_changes_a_run_is_noticed(ask: Ask) -> None:
    settings = ask(in_every_setting)["settings"]
    for name in ("never", "whole mask"):
        strayed, lines = settings[name]
        assert strayed < SAME and "0% of the work" in lines


@pytest.mark.parametrize("name", ["cache", "two calls a step", "guided", "batch", "comfyui's own model"])
def test_a_setting_in_which_nothing_is_left_out_or_the_edit_is_another_is_noticed(name: str, ask: Ask) -> None:
    strayed, lines = ask(in_every_setting)["settings"][name]
    assert 0 < strayed < 1.5
    assert "blocks left out" in lines and "0% of the work" not in lines


def test_a_run_that_sees_what_another_left_is_noticed(ask: Ask) -> None:
    state = ask(in_every_setting)["state"]
    assert state["again"] == 0 and state["without"] == 0
    assert state["silent"] == 1, "a run of the model without it says nothing"
    assert state["replaced by a second"] == 0 and state["switched off by a second"] == 0


def test_a_lora_that_is_lost_or_counted_otherwise_is_noticed(ask: Ask) -> None:
    after, stock, without = ask(in_every_setting)["lora"]
    assert after < SAME and stock < SAME and without > 1e-3


def test_a_patch_of_another_node_that_is_passed_by_or_loses_tokens_is_noticed(ask: Ask) -> None:
    calls, strayed, lines = ask(in_every_setting)["others"]
    assert 0 < calls < 4 and 0 < strayed < 1.5
    assert "a patch or a ControlNet of another node is at work" in lines and "tokens left out" not in lines


def test_a_measured_run_that_is_not_compared_with_the_exact_one_is_noticed(ask: Ask) -> None:
    told = ask(in_every_setting)
    assert f"pictures not compared, latent {told['apart as measured']:.3f} apart" in told["measured"][0]
    assert "latent 0.000 apart" in told["nothing left out, measured"][0], "the same noise, of the sampler's own too"
    assert "picture" in told["decoded"][0] and " dB" in told["decoded"][0]


@question
def refusals() -> Any:
    def fast(model):
        return refusal(lambda: with_fast(model, NodeWishes(Wishes(cache=0.1), print)))

    other = SimpleNamespace(model=SimpleNamespace(diffusion_model=torch.nn.Identity()))
    told: list[Any] = []
    model = with_fast(ours(), NodeWishes(Wishes(settled=ANYTHING, mask=corner()), told.append))
    run(model, conditioning(random(1, 16, 4, 4)))
    return [fast(other), " ".join(told[-1])]


def test_a_model_that_is_no_flux_is_refused_and_a_mask_that_fits_nothing_is_said(ask: Ask) -> None:
    other, size = ask(refusals)
    assert "not FLUX.1" in other
    assert "the first reference is of another size" in size and "0% of the work" in size
