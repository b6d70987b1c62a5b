"""The parts that Keep is made of, each against a plain way of doing the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from drawn import pair, scene
from kontext_bridge.imaging.keep import blend, engine, filters
from kontext_bridge.imaging.keep import colour as colours
from kontext_bridge.imaging.keep.blend import LaidPart, blended
from kontext_bridge.imaging.keep.carry import carried
from kontext_bridge.imaging.keep.change import FINE_REACH, find_change, fine_ratio, left_over
from kontext_bridge.imaging.keep.components import parts_of, with_filled_holes
from kontext_bridge.imaging.keep.engine import keep
from kontext_bridge.imaging.keep.filters import blur, centres, halved, highest, in_blocks, lowest, sampled
from kontext_bridge.imaging.keep.look import Look
from kontext_bridge.imaging.keep.mapping import Mapping, legendre
from kontext_bridge.imaging.keep.measures import ciede2000, distance, lab
from kontext_bridge.imaging.keep.refine import FINE, Aligner
from kontext_bridge.imaging.keep.verdict import Verdict
from torch import Tensor


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 70), (1, 48, 48), (2, 97, 131)])
@pytest.mark.parametrize("sigma", [0.7, 1.5, 6.0])
def test_a_blur_is_the_gaussians_convolution(shape: tuple[int, int, int], sigma: float) -> None:
    planes = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    radius = int(np.ceil(3 * sigma))
    weights = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / (round(sigma * 64) / 64)) ** 2)
    weights /= weights.sum()
    padded = F.pad(planes[:, None], (radius,) * 4, mode="replicate")
    wanted = F.conv2d(F.conv2d(padded, weights.view(1, 1, 1, -1)), weights.view(1, 1, -1, 1))[:, 0]
    assert torch.allclose(blur(planes, sigma), wanted, atol=1e-5)


@pytest.mark.parametrize("radius", [1, 2, 5, 6])
def test_the_highest_nearby_is_a_pooling(radius: int) -> None:
    planes = torch.randn(2, 31, 44, generator=torch.Generator().manual_seed(2))
    assert torch.equal(highest(planes, radius), F.max_pool2d(planes[None], 2 * radius + 1, 1, radius)[0])
    assert torch.equal(lowest(planes, radius), -F.max_pool2d(-planes[None], 2 * radius + 1, 1, radius)[0])


@pytest.mark.parametrize("height", [1, 20, 104, 200, 201, 430])
def test_what_is_made_in_blocks_is_what_is_made_at_once(height: int) -> None:
    planes = torch.rand(1, height, 40, generator=torch.Generator().manual_seed(4))
    wanted = highest(blur(planes, 2.5), 3)
    made = in_blocks(lambda rows, columns: highest(blur(planes[:, rows, columns], 2.5), 3), 11, height, 40)
    assert torch.allclose(made, wanted, atol=1e-6)


def test_blocks_are_made_where_they_are_asked_for_and_nowhere_else() -> None:
    planes = torch.rand(1, 450, 300, generator=torch.Generator().manual_seed(4))
    wanted = highest(blur(planes, 2.5), 3)
    where = torch.zeros(450, 300, dtype=torch.bool)
    where[30:40, 20:50] = where[30:40, 200:210] = where[210:, 120] = where[449, 299] = True
    asked = torch.zeros(450, 300, dtype=torch.bool)

    def work(rows: slice, columns: slice) -> Tensor:
        asked[rows, columns] = True
        return highest(blur(planes[:, rows, columns], 2.5), 3)

    made = in_blocks(work, 11, 450, 300, where)
    assert torch.allclose(made[:, where], wanted[:, where], atol=1e-6)
    assert not asked[:, 70:105].any() and not asked[:180, 230:].any()


def changed(source: Tensor, edited: Tensor) -> Tensor:
    everywhere, left = torch.ones(source.shape[1:], dtype=torch.bool), source - edited

    def fine(rows: slice, columns: slice) -> Tensor:
        return fine_ratio(source[:, rows, columns], left[:, rows, columns], everywhere[None, rows, columns].float())

    ratio = in_blocks(fine, FINE_REACH, *everywhere.shape)[0]
    return find_change(ratio, halved(source), halved(left), everywhere).mask


def test_a_change_is_the_same_where_one_band_ends_and_the_next_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    source = scene(260, 120).permute(2, 0, 1)
    edited = source.clone()
    edited[:, 186:214, 30:80] = edited[[1, 2, 0], 186:214, 30:80]
    banded = changed(source, edited)
    monkeypatch.setattr(filters, "_BAND", 1000)
    assert np.array_equal(banded, changed(source, edited))
    assert banded[191:209, 35:75].all() and not banded[:176].any() and not banded[226:].any()


def test_a_gap_by_chance_at_the_edits_border_does_not_go_on_widening_beyond_it() -> None:
    """The edit begins twenty rows below the picture; above row 300 all is new, but for a gap of a few rows at its
    border, which says nothing of how the change goes on beyond it."""
    mapping = Mapping.of(torch.tensor([[240.0, 0, 0], [0, 900, -20]]), (880, 240))
    judged = mapping.covered(*mapping.on(900, 240), 3.0)
    judged[:, :3] = judged[:, -3:] = judged[-3:] = False
    mask = judged.clone()
    mask[300:] = False
    mask[:28, 114:126] = False
    half_size = torch.zeros(3, 450, 120)
    seen = Look(half_size, half_size + 0.5, half_size + 0.5, half_size[0] == 0, judged, mask, mask, None, 1.0)
    beyond = carried(seen, mapping).mask[:20]
    assert beyond[:, 6:105].all() and beyond[:, 135:-6].all()


def test_a_drift_is_taken_back_as_it_was_learnt() -> None:
    """By the sum over all terms, and band by band what is taken back at once."""
    colour = torch.rand(3, 150, 90, generator=torch.Generator().manual_seed(5))
    down, across = centres(150), centres(90)
    rows, columns = (legendre(2 * share - 1, colours._BIAS) for share in (down, across))
    slow = torch.stack([rows[i][:, None] * columns[j] for i, j in colours._SLOW_BIAS])
    drift = colours.Drift(0.02 * torch.randn(3, 39, generator=torch.Generator().manual_seed(6)), 0.05)
    flat = colour.reshape(3, -1)
    added = torch.stack([drift.weights[c] @ colours._terms(flat, c, slow.reshape(len(slow), -1)) for c in range(3)])
    wanted = flat + 0.7 * added.clamp(-0.05, 0.05)
    assert torch.allclose(drift.corrected(colour, down, across, 0.7).reshape(3, -1), wanted, atol=1e-5)


def test_the_noise_of_an_edit_is_not_learnt_as_its_drift() -> None:
    """Colours on one line, as among leaves: beside it there is nothing but noise. A new colour stays its own."""
    rng = torch.Generator().manual_seed(7)
    bright = 0.2 + 0.5 * torch.rand(1, 80, 120, generator=rng)
    source = bright * torch.tensor([0.6, 1.0, 0.4])[:, None, None]
    edited = source + 0.02 + 0.02 * torch.randn(3, 80, 120, generator=rng)
    drift = colours.fit_drift(source, edited, torch.ones(1, 80, 120), True)
    assert drift is not None
    violet = torch.tensor([0.5, 0.25, 0.6])[:, None, None].expand(3, 8, 8)
    mended = drift.corrected((violet + 0.02).contiguous(), centres(8), centres(8))
    assert float((mended - violet).abs().max()) < 0.02


def test_laying_in_by_tiles_leaves_no_trace_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    source, edited = scene(300, 280), scene(300, 280, 3).permute(2, 0, 1).contiguous()
    alpha = torch.zeros(150, 140)
    alpha[20:90, 50:], alpha[120, 3] = 1, 0.5
    mapping = Mapping.of(torch.tensor([[280.0, 0, 3.2], [0, 300.0, -1.7]]), (300, 280))
    patch = LaidPart(edited, mapping, None, torch.full((3, 75, 70), 0.02), 1.0)
    tiled = blended(source, patch, alpha)
    monkeypatch.setattr(blend, "_TILE", 1000)
    whole = blended(source, patch, alpha)
    assert torch.allclose(tiled[0], whole[0], atol=1e-5) and torch.allclose(tiled[1], whole[1], atol=1e-5)
    assert torch.equal(tiled[0][tiled[1] == 0], source[tiled[1] == 0])


def test_a_result_that_is_not_the_sources_outside_the_change_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    given = pair(160, 200)
    assert (told := keep(given.source, given.edited).report.after) is not None and told.psnr == 99 and told.ssim == 1

    def careless(*one: Tensor) -> tuple[Tensor, Tensor]:
        picture, weight = blended(*one)
        return picture + 0.1, weight

    monkeypatch.setattr(engine, "blended", careless)
    assert (told := keep(given.source, given.edited).report.after) is not None
    assert told.psnr == pytest.approx(20, abs=0.2) and told.delta > 1


@pytest.mark.parametrize("corners", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_connected_parts_are_those_that_flooding_finds(corners: bool, seed: int) -> None:
    mask = np.random.default_rng(seed).random((23, 31)) < 0.45
    steps = [(0, 1), (1, 0), (0, -1), (-1, 0)] + [(1, 1), (1, -1), (-1, 1), (-1, -1)] * corners
    sizes, left = [], {(int(y), int(x)) for y, x in zip(*np.nonzero(mask), strict=True)}
    while left:
        edge, size = [left.pop()], 0
        while edge:
            y, x = edge.pop()
            size += 1
            for step in steps:
                there = (y + step[0], x + step[1])
                if there in left:
                    left.remove(there)
                    edge.append(there)
        sizes.append(size)
    parts = parts_of(mask, corners)
    assert sorted(parts.areas()) == sorted(sizes)
    assert parts.counts(np.ones_like(mask)).tolist() == parts.areas().tolist()
    assert np.array_equal(parts.painted(np.ones(parts.count, bool)), mask)


def test_nothing_has_no_parts_and_small_holes_are_filled() -> None:
    assert parts_of(np.zeros((4, 5), bool)).count == 0
    mask = np.ones((20, 20), bool)
    mask[2:4, 2:4] = mask[8:16, 8:16] = False
    filled = with_filled_holes(mask, 10)
    assert filled[2:4, 2:4].all() and not filled[8:16, 8:16].any()


# From the test data of Sharma, Wu and Dalal, "The CIEDE2000 Color-Difference Formula" (2005).
SHARMA = [
    ((50.0, 2.6772, -79.7751), (50.0, 0.0, -82.7485), 2.0425),
    ((50.0, -1.0, 2.0), (50.0, 0.0, 0.0), 2.3669),
    ((50.0, 2.49, -0.001), (50.0, -2.49, 0.0011), 7.2195),
    ((50.0, 2.5, 0.0), (73.0, 25.0, -18.0), 27.1492),
    ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
    ((22.7233, 20.0904, -46.6940), (23.0331, 14.9730, -42.5619), 2.0373),
    ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
]


@pytest.mark.parametrize(("one", "other", "wanted"), SHARMA)
def test_colour_differences_are_those_of_the_paper(
    one: tuple[float, ...], other: tuple[float, ...], wanted: float
) -> None:
    a, b = (torch.tensor(colour, dtype=torch.float64)[:, None] for colour in (one, other))
    assert float(ciede2000(a, b)) == pytest.approx(wanted, abs=1e-4)


def test_known_colours_have_their_published_lab_values() -> None:
    colours = torch.tensor([[1.0, 1, 1], [0, 0, 0], [1, 0, 0], [0, 0, 1]]).T
    wanted = torch.tensor([[100.0, 0, 0], [0, 0, 0], [53.24, 80.09, 67.20], [32.30, 79.19, -107.86]]).T
    assert torch.allclose(lab(colours), wanted, atol=0.05)


def test_distances_of_the_same_and_of_a_grey_step() -> None:
    picture = scene(200, 240).permute(2, 0, 1)
    everywhere = torch.ones(200, 240, dtype=torch.bool)
    same = distance(picture, picture, everywhere)
    assert same is not None and (same.psnr, same.delta) == (99.0, 0.0) and same.ssim == pytest.approx(1)
    step = distance(picture * 0 + 0.5, picture * 0 + 0.6, everywhere)
    assert step is not None and step.psnr == pytest.approx(20, abs=0.01)
    assert distance(picture, picture, ~everywhere) is None


def test_a_mapping_of_a_framing_is_that_framing() -> None:
    mapping = Mapping.of(torch.tensor([[200.0, 0, 10], [0, 100, -5]]), (90, 220))
    u, v = mapping.at(torch.tensor([0.0, 0.5, 1.0]), torch.tensor([0.0, 1.0]))
    assert torch.allclose(u, torch.tensor([[10.0, 210]] * 3)) and torch.allclose(v[:, 0], torch.tensor([-5.0, 45, 95]))
    assert mapping.bend() == (0, 0)
    shift, scale, turn = mapping.motion()
    assert shift == (0, 0) and scale == pytest.approx(1) and turn == 0


@pytest.mark.parametrize(
    ("edited", "corrected", "source", "left"),
    [
        (0.0, 0.04, 0.0, 0.0),  # black may have been any darker colour
        (0.0, 0.0, 0.05, 0.035),  # but no brighter one
        (1.0, 0.85, 0.99, 0.0),
        (1.0, 0.95, 0.9, -0.035),
        (0.5, 0.52, 0.5, -0.02),
    ],
)
def test_what_was_cut_off_explains_a_difference_beyond_it_and_no_other(
    edited: float, corrected: float, source: float, left: float
) -> None:
    one, two, three = (torch.full((3, 1, 1), value) for value in (source, corrected, edited))
    assert float(left_over(one, two, three, torch.ones(1, 1, 1))[0]) == pytest.approx(left, abs=1e-6)


def test_a_thing_recoloured_in_the_dark_is_found_whole() -> None:
    """Its blue goes from little to none, where the edit is cut off."""
    given = pair(disc=None)
    source = given.source * 0.12 + 0.02
    y, x = torch.meshgrid(torch.arange(288), torch.arange(384), indexing="ij")
    disc = (x - 200) ** 2 + (y - 140) ** 2 < 50**2
    source[disc] = torch.tensor([0.05, 0.05, 0.05])
    edited = source.clone()
    edited[disc] = torch.tensor([0.06, 0.06, 0.0])
    kept = keep(source, edited)
    assert float((kept.mask[disc] > 0.5).float().mean()) > 0.95


def test_white_to_which_an_edit_was_brightened_is_no_change() -> None:
    """Above it is just bright enough to be cut off, below it was white before."""
    source = 0.05 + 0.5 * scene(288, 384)
    source[:150, 300:] = 0.87 + 0.02 * scene(150, 84, 1)
    source[150:, 300:] = 1 - 0.02 * scene(138, 84, 1)
    kept = keep(source, (source * 1.17).clamp(0, 1))
    assert kept.report.verdict is Verdict.NONE, kept.report.line


@pytest.mark.parametrize("white", [True, False])
def test_what_was_cut_off_tells_of_a_drift_that_it_was_and_no_more(white: bool) -> None:
    """A third of it is all one in the edit, and was brighter than white, or darker than black, without the drift."""
    source = 0.79 * torch.rand(60, 100, generator=torch.Generator().manual_seed(8))
    source[::3] = 0.9
    source = (source if white else 1 - source).expand(3, -1, -1)
    edited = source * 1.25 if white else source * 1.25 - 0.25
    cut = (edited > 1).float() - (edited < 0).float()
    end = torch.full((3, 1, 1), 1.0 if white else 0.0)
    ones = torch.ones(1, 60, 100)
    off = []
    for told in (cut, None):
        drift = colours.fit_drift(source, edited.clamp(0, 1), ones, True, None, told)
        assert drift is not None
        off.append(float((drift.corrected(end, centres(1), centres(1)) - (0.8 if white else 0.2)).abs().max()))
    assert off[0] < 0.03 and off[1] > 0.05, off


def test_a_sky_whose_noise_is_finer_than_its_clouds_is_located() -> None:
    """Below there is texture, above are faint clouds, and there the edit is bent by up to 5 pixels."""
    rng = torch.Generator().manual_seed(3)
    clouds = F.interpolate(torch.rand(1, 1, 20, 30, generator=rng), (320, 480), mode="bicubic")[0]
    fine = torch.rand(1, 320, 480, generator=rng)
    land = (torch.arange(320) > 250).float()[None, :, None]
    source = 0.5 + 0.02 * clouds + 0.3 * land * (fine - 0.5)
    down, across = torch.meshgrid(torch.arange(320) + 0.5, torch.arange(480) + 0.5, indexing="ij")
    bend = 5 * (1 - down / 320).square()
    edited = sampled(source, across - bend, down, "bicubic")
    grain = 0.012 * torch.randn(1, 320, 480, generator=rng)
    aligner = Aligner(source, edited + grain, (320, 480))
    start = Mapping.of(torch.tensor([[480.0, 0, 0], [0, 320, 0]]), (320, 480))
    off = []
    for coarse in (120, 0):
        levels = [replace(level, coarse=coarse) for level in FINE]
        u, _ = aligner.refine(start, levels).mapping.on(320, 480)
        off.append(float((u - across - bend)[20:200, 40:440].abs().mean()))
    assert off[0] < 0.7 and off[1] > 1.1, off


def test_a_mask_ends_softly() -> None:
    mask = torch.zeros(40, 40, dtype=torch.bool)
    mask[15:25, 15:25] = True
    faded = engine._faded(mask, 4)
    assert bool((faded[mask] == 1).all()) and float(faded[20, 29]) == 0 and 0 < float(faded[20, 28]) < 0.05
