"""An edit laid back onto its source: where it lies, what changed, and that the rest is the source's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from drawn import Pair, pair, scene
from kontext_bridge.imaging.errors import ImageError
from kontext_bridge.imaging.keep.engine import Kept, Options, keep
from kontext_bridge.imaging.keep.filters import blur, highest
from kontext_bridge.imaging.keep.pairs import keep_batch
from kontext_bridge.imaging.keep.scope import Scope
from kontext_bridge.imaging.keep.verdict import Verdict
from torch import Tensor

# How far from the true change the source must be itself again, in pixels of the source: what the mask may run over
# and the feather.
ROOM = 9

CASES: dict[str, dict[str, Any]] = {
    "as it was": {},
    "shifted": {"shift": (7.3, -4.6)},
    "a little larger": {"zoom": 1.03, "shift": (-3.4, 5.2)},
    "15 % larger": {"zoom": 1.15, "shift": (4.0, 3.0)},
    "15 % smaller": {"zoom": 0.86, "shift": (-4.0, 3.0)},
    "another aspect, squeezed": {"size": (352, 320)},
    "another aspect, covered": {"size": (352, 352), "fit": "cover", "disc": (0.5, 0.5, 0.16)},
    "another aspect, padded": {"size": (352, 352), "fit": "pad"},
    "edit larger than the source": {"size": (576, 768), "shift": (6.0, 3.0)},
    "edit smaller than the source": {"height": 576, "width": 768, "size": (288, 384), "shift": (2.2, 1.7)},
    "strong drift": {"drift": 2.0, "shift": (3.0, 2.0)},
    "much redrawn": {"loss": 2.0, "shift": (3.0, 2.0)},
    "nearly half of it in the middle": {"height": 320, "width": 320, "disc": (0.5, 0.5, 0.37), "shift": (7.0, -5.0)},
    "over the border": {"disc": (1.0, 0.5, 0.2), "shift": (3.0, 2.0)},
}


def off_by(kept: Kept, pair: Pair) -> float:
    """The mean distance between where the edit lies and where it was found, in its pixels."""
    height, width = pair.source.shape[:2]
    u, v = kept.mapping.on(24, 32)
    y, x = torch.meshgrid((torch.arange(24) + 0.5) / 24 * height, (torch.arange(32) + 0.5) / 32 * width, indexing="ij")
    true = torch.einsum("ij,jhw->ihw", pair.affine, torch.stack([x, y, torch.ones_like(x)]))
    inside = (true[0] > 0) & (true[1] > 0) & (true[0] < pair.edited.shape[1]) & (true[1] < pair.edited.shape[0])
    return float(torch.hypot(u - true[0], v - true[1])[inside].mean())


def away(changed: Tensor, room: int = ROOM) -> Tensor:
    """[H,W] bool: further than that from the change."""
    return highest(changed.float()[None], room)[0] == 0


def found_right(kept: Kept, given: Pair) -> bool:
    """Whether what changed was laid in, and nothing further off."""
    laid = float((kept.mask[given.changed] > 0.5).float().mean()) > 0.96
    return laid and float(kept.mask[away(given.changed)].max()) == 0


def rest_is_the_source(kept: Kept, source: Tensor) -> bool:
    """Whether every pixel that took nothing from the edit is the source's, and says so."""
    free = kept.mask == 0
    wanted = source.expand(-1, -1, 3) if source.shape[2] == 1 else source
    return torch.equal(kept.picture[free], wanted[free])


@pytest.mark.parametrize("case", CASES)
def test_only_what_was_edited_differs_from_the_source(case: str) -> None:
    given = pair(**CASES[case])
    kept = keep(given.source, given.edited)
    assert kept.report.verdict is Verdict.LOCAL, kept.report.line
    assert off_by(kept, given) < 0.3
    assert rest_is_the_source(kept, given.source)
    room = ROOM * (2 if "smaller than" in case else 1)
    assert float(kept.mask[away(given.changed, room)].max()) == 0
    height, width = given.source.shape[:2]
    u, v = kept.mapping.on(height, width)
    seen = given.changed & kept.mapping.covered(u, v)
    assert float((kept.mask[seen] > 0.5).float().mean()) > 0.96
    error = (kept.picture - given.ideal)[seen].abs().mean()
    assert float(error) < 0.03


def test_a_thing_that_closes_just_beyond_the_edits_border_is_not_drawn_on_to_the_pictures() -> None:
    """The edit is zoomed in by 4.5 %, and the disc's top lies a pixel above its upper border, 14 below the source's."""
    given = pair(640, 480, zoom=1.045, disc=(0.5, 0.5 - 0.5 / 1.045 - 1 / 640 + 0.3, 0.3))
    kept = keep(given.source, given.edited)
    assert kept.report.verdict is Verdict.LOCAL and rest_is_the_source(kept, given.source)
    assert float(kept.mask[away(given.changed)].max()) == 0
    assert float((kept.mask[given.changed] > 0.5).float().mean()) > 0.99


def test_a_thing_of_which_the_edit_cuts_off_a_little_is_laid_in_whole() -> None:
    """The edit shows 400 of 600 columns; the disc goes on beyond its left border, and closes there."""
    given = pair(400, 600, size=(512, 512), fit="cover", disc=(212 / 600, 0.5, 0.3))
    kept = keep(given.source, given.edited)
    assert kept.report.verdict is Verdict.LOCAL and rest_is_the_source(kept, given.source)
    assert float(kept.mask[away(given.changed)].max()) == 0
    cut = given.changed.clone()
    cut[:, 99:] = False
    assert float((kept.mask[cut] > 0.5).float().mean()) > 0.7


def test_a_thing_that_the_edit_cuts_in_half_ends_with_the_edit() -> None:
    given = pair(400, 600, size=(512, 512), fit="cover", disc=(100 / 600, 0.5, 0.2))
    kept = keep(given.source, given.edited)
    assert kept.report.verdict is Verdict.LOCAL and float(kept.mask[:, :92].max()) == 0


def test_a_new_background_reaches_the_pictures_border_although_textures_are_alike_by_chance() -> None:
    """The edit ends five columns before the picture, and its texture is the source's brightness here and there."""
    source = scene(288, 384, 1)
    noise = blur(torch.rand(3, 288, 384, generator=torch.Generator().manual_seed(1)), 1.0).permute(1, 2, 0)
    ideal = source.clone()
    ideal[:, 230:] = ((noise - 0.5) * 1.2 + source.mean((0, 1))).clamp(0, 1)[:, 230:]
    kept = keep(source, ideal[:, :-5].contiguous())
    assert kept.report.verdict is Verdict.LOCAL and rest_is_the_source(kept, source)
    assert float((kept.mask[:, -1] > 0.5).float().mean()) > 0.98


@pytest.mark.parametrize("loss", [0.0, 1.0])
def test_where_nothing_was_edited_every_pixel_is_the_sources(loss: float) -> None:
    given = pair(disc=None, zoom=1.02, shift=(3.0, -5.0), loss=loss)
    kept = keep(given.source, given.edited)
    assert kept.report.verdict is Verdict.NONE and torch.equal(kept.picture, given.source)
    assert not kept.mask.any()


def test_identical_pictures_are_recognised_without_a_look() -> None:
    source = scene(120, 160)
    kept = keep(source, source.clone())
    assert kept.report.verdict is Verdict.NONE and torch.equal(kept.picture, source)
    assert kept.report.line == "nothing was edited: every pixel is your own"


@pytest.mark.parametrize("size", [1, 2, 7, 8, 16, 33, 64])
def test_a_tiny_picture_raises_nothing_and_keeps_its_size(size: int) -> None:
    source = scene(size, size)
    for edited in (source * 0.9, scene(256, 256, 5), source.flip(0)):
        kept = keep(source, edited)
        assert kept.picture.shape == source.shape and bool(kept.picture.isfinite().all())
        assert rest_is_the_source(kept, source)


def test_64_by_64_keeps_what_was_not_edited() -> None:
    given = pair(64, 64, disc=(0.5, 0.5, 0.25))
    kept = keep(given.source, given.edited)
    assert kept.report.verdict is Verdict.LOCAL and rest_is_the_source(kept, given.source)
    assert float(kept.mask[away(given.changed)].max()) == 0
    assert float((kept.mask[given.changed] > 0.5).float().mean()) > 0.9


def test_alpha_is_kept_and_the_edits_own_is_ignored() -> None:
    given = pair(shift=(3.0, 2.0))
    alpha = torch.rand(288, 384, 1, generator=torch.Generator().manual_seed(3))
    source, edited = torch.cat([given.source, alpha], -1), torch.cat([given.edited, given.edited[..., :1]], -1)
    kept = keep(source, edited)
    assert torch.equal(kept.picture[..., 3:], alpha) and rest_is_the_source(kept, source)
    assert torch.equal(kept.picture[..., :3], keep(given.source, given.edited).picture)


def test_one_channel_becomes_three_and_the_rest_stays_grey() -> None:
    given = pair(shift=(3.0, 2.0))
    grey = given.source.mean(-1, keepdim=True)
    edited = torch.where(given.changed[..., None], given.edited, grey.expand(-1, -1, 3))
    kept = keep(grey, edited)
    assert kept.picture.shape[2] == 3 and kept.report.verdict is Verdict.LOCAL
    assert rest_is_the_source(kept, grey) and found_right(kept, given)


@pytest.mark.parametrize("type", [torch.float16, torch.bfloat16])
def test_half_precision_comes_back_as_it_came(type: torch.dtype) -> None:
    given = pair(shift=(3.0, 2.0))
    kept = keep(given.source.to(type), given.edited.to(type))
    assert kept.picture.dtype == type and rest_is_the_source(kept, given.source.to(type))
    assert kept.report.verdict is Verdict.LOCAL and found_right(kept, given)


@pytest.mark.parametrize("edited", [scene(288, 384, 7), torch.rand(300, 300, 3), torch.ones(64, 64, 3)])
def test_an_unrelated_picture_is_handed_on_with_the_reason(edited: Tensor) -> None:
    source = scene(288, 384)
    kept = keep(source, edited)
    assert kept.report.verdict is Verdict.WHOLE and kept.report.why
    assert bool((kept.mask == 1).all())
    scaled = torch.nn.functional.interpolate(edited.permute(2, 0, 1)[None], (288, 384), mode="bilinear")[0]
    assert float((kept.picture.permute(2, 0, 1) - scaled).abs().mean()) < 0.15


def test_what_was_asked_for_everywhere_is_handed_on_aligned() -> None:
    given = pair(disc=None, shift=(6.0, 0.0), drift=0.0)
    grey = given.edited.mean(-1, keepdim=True).expand(-1, -1, 3)
    kept = keep(given.source, grey)
    assert kept.report.verdict is Verdict.WHOLE and kept.report.shift == pytest.approx((6.0, 0.0), abs=0.3)
    wanted = given.source.mean(-1, keepdim=True)
    assert float((kept.picture - wanted)[:, :370].abs().mean()) < 0.03


def test_a_given_mask_bounds_the_change() -> None:
    given = pair(shift=(3.0, 2.0))
    mask = torch.zeros(288, 384)
    mask[:, :200] = 1
    kept = keep(given.source, given.edited, mask)
    assert rest_is_the_source(kept, given.source)
    assert float(kept.mask[away(mask > 0, 6)].max()) == 0
    # inside the mask what was not edited stays
    assert float(kept.mask[away(given.changed)].max()) == 0
    assert float((kept.mask[given.changed & (mask > 0)] > 0.5).float().mean()) > 0.95


def test_the_mask_as_it_is_takes_all_of_it() -> None:
    given = pair(shift=(3.0, 2.0))
    mask = torch.zeros(288, 384)
    mask[100:200, 40:150] = 1
    kept = keep(given.source, given.edited, mask, Options(Scope.MASK))
    assert bool((kept.mask[mask > 0] == 1).all()) and rest_is_the_source(kept, given.source)
    assert float(kept.mask[away(mask > 0, 5)].max()) == 0


def test_local_keeps_the_rest_of_a_picture_that_looks_like_another() -> None:
    kept = keep(scene(200, 300), scene(200, 300, 9), None, Options(Scope.LOCAL))
    assert kept.report.verdict is not Verdict.WHOLE and rest_is_the_source(kept, scene(200, 300))


def test_with_the_scope_whole_all_of_the_edit_is_taken() -> None:
    given = pair(shift=(3.0, 2.0))
    kept = keep(given.source, given.edited, None, Options(Scope.WHOLE))
    assert kept.report.verdict is Verdict.WHOLE and bool((kept.mask == 1).all())


def test_no_strength_leaves_the_edits_colours_alone() -> None:
    given = pair(drift=2.0)
    tinted = keep(given.source, given.edited, None, Options(strength=0.0))
    mended = keep(given.source, given.edited)
    inside = tinted.mask == 1
    raw, right = given.edited[inside], given.ideal[inside]
    assert float((tinted.picture[inside] - raw).abs().mean()) < 0.02
    assert float((mended.picture[inside] - right).abs().mean()) < float((raw - right).abs().mean()) / 2


def test_a_wider_feather_reaches_further() -> None:
    given = pair(shift=(3.0, 2.0))
    narrow, wide = (keep(given.source, given.edited, None, Options(feather=one)) for one in (0, 12))
    assert float((wide.mask > 0).float().mean()) > float((narrow.mask > 0).float().mean())
    assert set(narrow.mask.unique().tolist()) == {0.0, 1.0}
    assert rest_is_the_source(wide, given.source)


def test_what_the_edit_does_not_cover_is_said() -> None:
    given = pair(size=(352, 352), fit="cover", disc=(0.5, 0.5, 0.16))
    report = keep(given.source, given.edited).report
    assert report.covered == pytest.approx(0.75, abs=0.01) and "of the picture lies beyond the edit" in report.line


def test_the_report_tells_the_motion() -> None:
    report = keep(*(lambda one: (one.source, one.edited))(pair(zoom=1.02, shift=(4.0, -3.0)))).report
    assert report.shift == pytest.approx((4.0, -3.0), abs=0.1) and report.scale == pytest.approx(1.02, abs=5e-4)
    assert report.line.startswith("shifted 5.0 px, 2.0% larger; tint corrected; ")
    assert report.drift[1] < report.drift[0] / 3
    assert report.before is not None and report.after is not None
    assert report.before.psnr < 30 < report.after.psnr and report.after.delta == 0


def test_a_batch_is_kept_pair_by_pair() -> None:
    pairs = [pair(160, 200, shift=(2.0, 1.0), seed=seed) for seed in (0, 1)]
    source, edited = torch.stack([one.source for one in pairs]), torch.stack([one.edited for one in pairs])
    kept = keep_batch(source, edited)
    for number, one in enumerate(pairs):
        assert torch.equal(kept.images[number], keep(one.source, one.edited).picture)
    assert kept.masks.shape == (2, 160, 200) and len(kept.reports) == 2


def test_one_source_serves_many_edits_and_told_progress() -> None:
    one, other = (pair(160, 200, disc=disc) for disc in ((0.3, 0.5, 0.15), (0.7, 0.5, 0.15)))
    told: list[tuple[int, int]] = []
    edited = torch.stack([one.edited, other.edited])
    kept = keep_batch(one.source[None], edited, None, None, lambda done, of: told.append((done, of)))
    assert kept.images.shape[0] == 2 and told == [(1, 2), (2, 2)]
    assert not torch.equal(kept.masks[0], kept.masks[1])


def test_an_empty_mask_of_another_size_is_no_mask() -> None:
    given = pair(160, 200)
    kept = keep_batch(given.source[None], given.edited[None], torch.zeros(1, 64, 64))
    assert torch.equal(kept.images[0], keep(given.source, given.edited).picture)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_is_refused_by_name(value: float) -> None:
    source = scene(64, 64)[None]
    broken = source.clone()
    broken[0, 3, 4, 1] = value
    for pictures in ((source, broken), (broken, source)):
        with pytest.raises(ImageError, match="NaN or infinite"):
            keep_batch(*pictures)


@pytest.mark.parametrize(
    ("sources", "edits", "mask", "words"),
    [
        (2, 3, None, "3 edits for 2 sources"),
        (1, 2, torch.ones(3, 64, 64), "3 masks for 2 edits"),
        (1, 1, torch.ones(1, 32, 64), "64x32 and the source 64x64"),
    ],
)
def test_what_does_not_go_together_is_named(sources: int, edits: int, mask: Tensor | None, words: str) -> None:
    with pytest.raises(ImageError, match=words):
        keep_batch(torch.rand(sources, 64, 64, 3), torch.rand(edits, 64, 64, 3), mask)


@pytest.mark.parametrize("mask", [None, torch.zeros(64, 64)])
def test_the_mask_as_it_is_needs_a_mask(mask: Tensor | None) -> None:
    with pytest.raises(ImageError, match="change is mask, but no mask"):
        keep(scene(64, 64), scene(64, 64, 1), mask, Options(Scope.MASK))


def test_values_beyond_0_and_1_stay_where_nothing_was_edited() -> None:
    given = pair(shift=(3.0, 2.0))
    source = given.source * 1.2 - 0.1
    kept = keep(source, given.edited)
    assert rest_is_the_source(kept, source)


@pytest.mark.parametrize("after", [1, 2, 3, 5, 8])
def test_what_the_check_between_the_steps_raises_ends_the_work_at_once(after: int) -> None:
    given = pair(160, 200, shift=(2.0, 1.0))
    calls = iter(range(99))

    def check() -> None:
        if next(calls) == after - 1:
            raise InterruptedError

    pictures = torch.stack([given.source] * 2), torch.stack([given.edited] * 2)
    told: list[int] = []
    with pytest.raises(InterruptedError):
        keep_batch(*pictures, progress=lambda done, _: told.append(done), check=check)
    assert next(calls) == after and told == ([1] if after > 7 else [])
