"""Approximations on a tiny model: off they change nothing, on they do what they say, and no run sees another's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from kontext_bridge.kontext.checkpoint.reading import read_checkpoint
from kontext_bridge.kontext.edit import LatentEdit
from kontext_bridge.kontext.errors import BadRequest
from kontext_bridge.kontext.fast import evaluations
from kontext_bridge.kontext.fast.asked import FastOptions, asked
from kontext_bridge.kontext.fast.evaluations import OTHER_SIZE, Run
from kontext_bridge.kontext.fast.measured import Clock
from kontext_bridge.kontext.fast.outside import inside
from kontext_bridge.kontext.fast.smaller import shrunk, shrunk_places
from kontext_bridge.kontext.fast.tally import NOT_MEASURED, Deviation, Tally, apart, decibels
from kontext_bridge.kontext.fast.wishes import Wishes
from kontext_bridge.kontext.latents import ReferenceMethod, pack, positions
from kontext_bridge.kontext.standalone import blocks
from kontext_bridge.kontext.standalone.denoiser import Conditioning
from kontext_bridge.kontext.standalone.fast_sampler import sampled
from kontext_bridge.kontext.standalone.mount import mount
from kontext_bridge.kontext.standalone.sampler import sample
from kontext_bridge.kontext.standalone.tiny import TINY, write_scaled

EDIT = LatentEdit(width=96, height=64, steps=5, seed=7)
CORNER = torch.zeros(1, 64, 96)
CORNER[:, :16, :16] = 1
# So much may change that every call ends after its first block, and all is settled at once.
ANYTHING = 0.99


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.mktemp("model") / "kontext_tiny.safetensors"
    write_scaled(path)
    return mount(read_checkpoint(path), dtype=torch.float32)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


REFERENCE = random(1, 16, 8, 12, seed=4)
PROMPT = Conditioning(random(1, 11, TINY.context, seed=1), random(1, TINY.pooled, seed=2))
OTHER = Conditioning(random(1, 11, TINY.context, seed=5), random(1, TINY.pooled, seed=6))


def taken(model, wishes=None, edit=EDIT, references=(REFERENCE,), **options):
    tally = Tally()
    return sample(model, edit, PROMPT, references, fast=wishes, tally=tally, **options), tally


@pytest.mark.parametrize(
    "wishes",
    [Wishes(), Wishes(cache=1e-9), Wishes(smaller=1.0), Wishes(settled=ANYTHING, mask=torch.ones(1, 8, 8))],
    ids=["nothing asked for", "a cache that never matches", "a reference as large", "a mask of the whole picture"],
)
def test_an_approximation_that_leaves_nothing_out_and_changes_the_edit_is_noticed(wishes: Wishes, model) -> None:
    exact, _ = taken(model)
    latent, tally = taken(model, wishes)
    assert torch.equal(latent, exact) and tally.saved == 0


def test_a_call_that_ends_after_its_first_block_only_in_name_is_noticed(model, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    for name in ("double_block", "single_block"):
        real = getattr(blocks, name)
        monkeypatch.setattr(blocks, name, lambda *given, real=real: seen.append(1) or real(*given))
    _, tally = taken(model, Wishes(cache=ANYTHING))
    whole = TINY.doubles + TINY.singles
    assert tally.calls == 5 and tally.blocks == 5 * whole and tally.ended > 0
    assert tally.blocks_left == tally.ended * (whole - 1)
    assert len(seen) == tally.blocks - tally.blocks_left


def test_a_call_like_the_last_that_ran_whole_gives_what_that_gave() -> None:
    run = Run(Wishes(cache=0.1), 8, 12, Tally())
    picture, first, last = (random(2, 24, 8, seed=seed) for seed in range(3))
    whole = run.call("a", 1.0, None)
    whole.enter(picture)
    assert not whole.after_first(first) and torch.equal(whole.after_last(last), last)
    again = run.call("a", 0.9, None)
    again.enter(picture)
    assert again.after_first(first)
    torch.testing.assert_close(again.after_last(first), last)
    for call, changed in ((run.call("a", 0.8, None), first * 1.5), (run.call("b", 0.8, None), first)):
        call.enter(picture)
        assert not call.after_first(changed), "another first block, or another condition"


def test_one_picture_of_a_batch_that_changes_keeps_all_of_it_going() -> None:
    run = Run(Wishes(cache=0.1), 8, 12, Tally())
    picture, first = torch.zeros(2, 24, 8), random(2, 24, 8)
    call = run.call("a", 1.0, None)
    call.enter(picture)
    call.after_first(first)
    call.after_last(first)
    moved = first.clone()
    moved[1] *= 2
    call = run.call("a", 0.9, None)
    call.enter(picture)
    assert not call.after_first(moved)


def test_a_run_that_takes_up_what_another_left_is_noticed(model) -> None:
    wishes = Wishes(cache=0.5, settled=ANYTHING, mask=CORNER, smaller=2.0)
    first, tally = taken(model, wishes)
    taken(model, wishes, replace(EDIT, seed=8))
    again, same = taken(model, wishes)
    assert torch.equal(first, again) and tally == same
    assert torch.equal(taken(model)[0], taken(model, Wishes())[0])


def test_tokens_outside_a_mask_arrive_at_the_source_and_are_not_computed(model) -> None:
    latent, tally = taken(model, Wishes(settled=ANYTHING, mask=CORNER))
    within = inside(CORNER, 8, 12)
    assert within.view(4, 6).tolist() == [[row < 2 and column < 2 for column in range(6)] for row in range(4)]
    torch.testing.assert_close(pack(latent)[:, ~within], pack(REFERENCE)[:, ~within], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(pack(latent)[:, within], pack(REFERENCE)[:, within], atol=0.1)
    # Two calls to see that nothing changes any more; those after them are short.
    assert (tally.calls, tally.without, tally.tokens_left) == (5, 3, 3 * 20)


def test_a_mask_for_another_size_than_the_reference_leaves_nothing_out_and_says_so(model) -> None:
    other = random(1, 16, 8, 8, seed=9)
    latent, tally = taken(model, Wishes(settled=ANYTHING, mask=CORNER), references=(other,))
    assert torch.equal(latent, taken(model, references=(other,))[0])
    assert OTHER_SIZE in tally.lines()


def test_the_two_prompts_of_true_cfg_that_do_not_settle_together_are_noticed(model) -> None:
    edit, options = replace(EDIT, true_cfg=3.0), {"negative": OTHER}
    latent, tally = taken(model, Wishes(settled=ANYTHING, mask=CORNER), edit, **options)
    within = inside(CORNER, 8, 12)
    torch.testing.assert_close(pack(latent)[:, ~within], pack(REFERENCE)[:, ~within], atol=1e-4, rtol=1e-4)
    assert tally.calls == 10 and tally.without == 6


@pytest.mark.parametrize("method", ReferenceMethod)
def test_a_smaller_reference_that_does_not_cover_the_picture_is_noticed(method: ReferenceMethod) -> None:
    places = positions(8, 12, [(8, 12), (6, 4)], method)
    moved = shrunk_places(places[24:48], 8, 12, 2)
    assert shrunk(REFERENCE, 2).shape == (1, 16, 4, 6)
    rows, columns = (places[24:48, axis] for axis in (1, 2))
    assert moved.shape == (6, 3) and moved[:, 0].tolist() == [1.0] * 6
    assert moved[:, 1].view(2, 3)[:, 0].tolist() == [rows.min() + 0.5, rows.min() + 2.5]
    assert moved[:, 2].view(2, 3)[0].tolist() == [columns.min() + 0.5, columns.min() + 2.5, columns.min() + 4.5]


@pytest.mark.parametrize("factor", [1.5, 2, 3, 4])
def test_places_of_a_smaller_reference_whose_middle_moves_are_noticed(factor: float) -> None:
    places = positions(10, 14, [(10, 14)])[35:]
    moved = shrunk_places(places, 10, 14, factor)
    assert len(moved) == shrunk(random(1, 16, 10, 14), factor)[0, 0].numel() // 4
    torch.testing.assert_close(moved.amin(0) + moved.amax(0), places.amin(0) + places.amax(0))


def test_a_smaller_reference_costs_less_in_every_call(model) -> None:
    latent, tally = taken(model, Wishes(smaller=2.0))
    assert (tally.reference, tally.reference_left) == (5 * 24, 5 * 18)
    assert 0 < apart(latent, taken(model)[0]) < 1


def test_a_batch_is_approximated_as_it_is_asked(model) -> None:
    edit = replace(EDIT, batch=2)
    latent, _ = taken(model, Wishes(cache=0.3, settled=ANYTHING, mask=CORNER, smaller=2.0), edit)
    assert latent.shape == (2, 16, 8, 12) and bool(torch.isfinite(latent).all())
    within = inside(CORNER, 8, 12)
    for one in latent:
        torch.testing.assert_close(pack(one[None])[:, ~within], pack(REFERENCE)[:, ~within], atol=1e-5, rtol=1e-5)


def test_what_is_said_of_a_run_is_what_was_counted(model) -> None:
    def take(**options):
        return sample(model, EDIT, PROMPT, [REFERENCE], **options)

    assert sampled(take, Wishes())[1] == []
    _, lines = sampled(take, Wishes(smaller=2.0))
    assert "of the work left out" in lines[0]
    assert lines[1:] == [NOT_MEASURED, "reference: 6 instead of 24 tokens"]
    latent, lines = sampled(take, Wishes(cache=ANYTHING), lambda latent: latent[:, :3].sigmoid())
    assert lines[-1].startswith("cache: ") and "blocks left out" in lines[-1]
    assert f" dB, latent {apart(latent, take()):.3f} apart (" in lines[0] and "time saved, picture " in lines[0]


def test_a_time_saved_and_a_deviation_that_a_node_has_no_room_for_are_noticed() -> None:
    """Two lines of a node are some 80 characters, and the rest is cut off."""
    tally = Tally(calls=20, ended=15, blocks=220, blocks_left=150, rows=100, rows_left=68)
    measured = " · ".join(tally.said(Deviation(0.027, 51.1, 12.12, 4.13)))[:80]
    assert measured.startswith("66% of the time saved, picture 51.1 dB, latent 0.027 apart")
    assert " · ".join(tally.said(None))[:80].startswith(f"68% of the work left out · {NOT_MEASURED}")
    tally.note("mask: nothing left out")
    assert tally.said(Deviation(0.1, None, 1, 1))[2] == tally.said(None)[2] == "mask: nothing left out"


def test_a_saved_time_that_a_first_call_or_a_busy_machine_makes_up_is_noticed() -> None:
    """Half of the calls of both runs were held up; beside the median of the exact ones nothing would be saved."""
    exact, fast = Clock(), Clock()
    exact.seconds, fast.seconds = [9.0, 1.0, 4.0, 1.0, 4.0, 1.0], [1.0, 0.1, 3.1, 0.1, 3.1, 0.1]
    assert exact.steady == 1 + 4 + 1 + 4 + 1 + 2.5 and fast.total == pytest.approx(7.5)
    assert str(Deviation(0, None, exact.steady, fast.total)).startswith("44% of the time saved")
    assert Clock().steady == 0


def test_a_fast_run_that_was_slower_is_not_said_to_have_saved_less_than_nothing() -> None:
    """As on a computer that is busy meanwhile: -425% saved, it said."""
    assert str(Deviation(0.016, 54.2, 0.84, 4.40)).startswith("no time saved, picture 54.2 dB")


def test_decibels_of_the_same_picture_and_of_none_are_as_they_should_be() -> None:
    one = torch.rand(1, 8, 8, 3)
    assert decibels(one, one) == pytest.approx(120)
    assert decibels(torch.zeros(1, 8, 8, 3), torch.ones(1, 8, 8, 3)) == pytest.approx(0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cache": 1.0}, "cache is 1.0"),
        ({"cache": float("nan")}, "cache is nan"),
        ({"settled": -0.1, "mask": CORNER}, "settled is -0.1"),
        ({"smaller": 0.5}, "reference is 0.5"),
        ({"smaller": 5.0}, "reference is 5.0"),
        ({"settled": 0.1}, "give a mask"),
        ({"settled": 0.1, "mask": torch.zeros(1, 8, 8)}, "The mask is empty"),
        ({"settled": 0.1, "mask": torch.ones(8, 8)}, r"shape \[8, 8\]"),
    ],
)
def test_a_wish_that_makes_no_sense_is_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        Wishes(**changes)


def test_a_mask_thinner_than_a_token_is_not_lost() -> None:
    line = torch.zeros(1, 640, 960)
    line[:, 300, 100:900] = 1
    assert inside(line, 8, 12).view(4, 6)[1].any()
    point = torch.zeros(1, 3, 3)
    point[:, 1, 1] = 1
    assert inside(point, 64, 64).any()


def test_words_on_a_command_line_mean_what_they_say() -> None:
    assert asked([]) == FastOptions()
    assert asked(["cache", "reference=1.5"]) == FastOptions(cache=0.1, reference=1.5)
    assert asked(["mask=a=b.png", "measure"]) == FastOptions(mask="a=b.png", measure=True)
    for words, told in (
        (["cash"], "does not know 'cash'"),
        (["cache=many"], "which is no number"),
        (["cache", "cache=0.2"], "given twice"),
        (["settled=0.2"], "give --fast mask=FILE"),
        (["measure"], "nothing else is asked for"),
        (["mask="], "does not know 'mask='"),
    ):
        with pytest.raises(BadRequest, match=told):
            asked(words)


def test_a_file_of_this_room_that_knows_blocks_or_a_host_is_noticed() -> None:
    for path in Path(evaluations.__file__).parent.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "import comfy" not in text and "diffusers" not in text, path.name
