"""How a change goes on beyond the last line that the edit shows of it, and what is seen there."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from kontext_bridge.imaging.keep.blend import LaidPart, blended
from kontext_bridge.imaging.keep.carry import carried
from kontext_bridge.imaging.keep.components import Mask
from kontext_bridge.imaging.keep.look import Look
from kontext_bridge.imaging.keep.mapping import Mapping
from kontext_bridge.imaging.keep.outline import Ends
from torch import Tensor

ABOVE = 12  # lines that the edit does not show


def picture(shape: str, height: int = 90, width: int = 160) -> Mask:
    """[h,w]: of each shape rows 0 to ABOVE are to be guessed from the rest."""
    y, x = np.mgrid[0:height, 0:width] + 0.5
    found: Mask = {
        "disc": (x - 70) ** 2 + (y - 40) ** 2 < 34**2,
        "slanted strip": np.abs(x - 40 - y) < 20,
        "wedge": np.abs(x - 90) < 10 + 0.8 * y,
        "beside the border": x + 0.7 * y < 70,
        "gap": np.abs(x - 80 + 0.5 * y) > 12,
        "gap that closes": (x - 70) ** 2 + (y - 40) ** 2 > 34**2,
    }[shape]
    return found


@pytest.mark.parametrize("shape", ["disc", "slanted strip", "wedge", "beside the border", "gap", "gap that closes"])
def test_an_outline_goes_on_as_it_ran(shape: str) -> None:
    whole = picture(shape)
    ends, places = Ends.of(whole[ABOVE : ABOVE + 40]), np.arange(whole.shape[1]) + 0.5
    guessed = np.stack([ends.at(row - ABOVE, places) for row in range(ABOVE)])
    assert (guessed != whole[:ABOVE]).sum() <= 1.5 * ABOVE
    nearest = np.broadcast_to(whole[ABOVE], guessed.shape)
    assert (nearest != whole[:ABOVE]).sum() > 4 * (guessed != whole[:ABOVE]).sum()


def test_only_runs_that_close_go_on_where_that_is_asked() -> None:
    strip = np.concatenate([picture("disc"), picture("slanted strip")], 1)[ABOVE : ABOVE + 40]
    places = np.arange(strip.shape[1]) + 0.5
    found = Ends.of(strip, closing=20).at(-3.0, places)
    assert found[60:80].all() and not found[160:].any()
    assert not Ends.of(strip, closing=2).at(-1.0, places).any()


def test_no_ends_and_a_line_of_one_pixel() -> None:
    for full in (False, True):
        ends = Ends.of(np.full((40, 9), full))
        assert (ends.at(-5, np.arange(9.0)) == full).all() and (ends.moved(-5, 5, np.arange(9.0)) == np.arange(9)).all()
    assert Ends.of(np.ones((1, 1), bool)).at(-1, np.array([0.5])).all()


def look(whole: Mask, covered: int) -> tuple[Look, Mapping]:
    """The change of a picture of whose rows the edit shows all but the first `covered`; and its mapping."""
    height, width = whole.shape
    mapping = Mapping.of(torch.tensor([[float(width), 0, 0], [0, height, -covered]]), (height - covered, width))
    judged = mapping.covered(*mapping.on(height, width), 3.0)
    judged[:, :3] = judged[:, -3:] = judged[-3:] = False
    # A mask runs two pixels over its change.
    mask = torch.nn.functional.max_pool2d(torch.from_numpy(whole).float()[None], 5, 1, 2)[0] > 0
    grey = torch.zeros(3, height // 2, width // 2)
    return Look(grey, grey + 0.5, grey + 0.5, grey[0] == 0, judged, mask & judged, mask & judged, None, 1.0), mapping


def test_a_slanted_change_reaches_the_pictures_border_where_it_would() -> None:
    whole = picture("slanted strip", 240, 600)
    seen, mapping = look(whole, 12)
    found = carried(seen, mapping).mask[:12].numpy()
    assert (found != whole[:12])[:, 6:-6].sum() < 5 * 12  # straight up it would be some 2 * 10 a row


def test_what_is_hardly_seen_at_the_edits_border_does_not_go_on_far() -> None:
    """Six rows of it are seen, and by chance it may be none at all."""
    whole = picture("wedge", 240, 900)
    whole[20 + 3 + 6 :] = False
    seen, mapping = look(whole, 20)
    found = carried(seen, mapping).mask
    assert found[18:24, 70:110].any() and not found[:9].any()


def test_beyond_the_edits_border_its_outline_goes_on_with_the_mask() -> None:
    """A red strip on blue: its mirror image would turn back at the border."""
    whole = picture("slanted strip", 240, 600)
    seen, mapping = look(whole, 12)
    gone_on = carried(seen, mapping)
    colour = torch.where(torch.from_numpy(whole), torch.tensor([1.0, 0, 0])[:, None, None], torch.tensor(0.3))
    made = laid(colour[:, 12:].contiguous(), mapping, gone_on.shift, gone_on.mask)
    inside = torch.from_numpy(whole)[:10]
    inside = inside & ~torch.nn.functional.max_pool2d((~inside).float()[None], 7, 1, 3)[0].bool()
    assert float(made[:10][inside][:, 0].mean()) > 0.97
    mirrored = laid(colour[:, 12:].contiguous(), mapping, None, gone_on.mask)
    assert float(mirrored[:10][inside][:, 0].mean()) < 0.8


def laid(edited: Tensor, mapping: Mapping, shift: Tensor | None, mask: Tensor) -> Tensor:
    source = torch.full((*mask.shape, 3), 0.3)
    return blended(source, LaidPart(edited, mapping, None, None, 1.0, shift=shift), mask.float())[0]
