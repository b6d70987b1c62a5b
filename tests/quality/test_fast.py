"""Each approximation, judged by the demo model's edits of held-out instructions; keep is off.

What it leaves out is counted, how far it strays is bounded, and a mistake of it shows. That the places of a smaller
reference are its own is seen in tests/kontext/test_fast.py: this model knows no such references.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest
import torch
from demo_judge import Editor, Judge, as_image, exam, files
from kontext_bridge.kontext.fast.evaluations import OneCall, Run
from kontext_bridge.kontext.fast.first_block import FirstBlock
from kontext_bridge.kontext.fast.tally import Tally, apart, decibels
from kontext_bridge.kontext.fast.wishes import Wishes
from kontext_bridge.training.evaluate import Case, pictures
from kontext_bridge.training.instructions import EditKind
from kontext_bridge.training.scenes import FULL
from mutations import BOUNDS, KINDS
from torch.nn import functional

STEPS = 10
TABLE = "approximations, held-out instructions"
CACHE, SMALLER, SETTLED = 0.2, 1.5, 0.1


class Room:
    """The demo's editor, and for some cases their exact edits and their judge, made once."""

    def __init__(self, tables: dict[str, list[str]]) -> None:
        self.editor = Editor(files())
        self._tables = tables
        self._known: dict[tuple[Case, ...], tuple[Judge, torch.Tensor, torch.Tensor]] = {}

    def exact(self, asked: Sequence[Case]) -> tuple[Judge, torch.Tensor, torch.Tensor]:
        if tuple(asked) not in self._known:
            latent = self.editor.latents(asked, STEPS)
            shown = as_image(self.editor.pictures(latent))
            self._known[tuple(asked)] = Judge(files(), asked), latent, shown
        return self._known[tuple(asked)]

    def found(self, way: str, asked: Sequence[Case], wishes: Wishes) -> tuple[list[str], float, float, Tally]:
        """What the judge finds wrong, how far latent and picture are from the exact ones, and what was left out."""
        judge, exact, shown = self.exact(asked)
        tally = Tally()
        latent = self.editor.latents(asked, STEPS, fast=wishes, tally=tally)
        made = self.editor.edits_of(asked, latent)
        seen, strayed = judge(made), apart(latent, exact)
        likeness = decibels(as_image(made.pictures), shown)
        faults = replace(BOUNDS, contrast=0.03, brightness=0.03).faults(seen)
        self._tables.setdefault(TABLE, []).append(
            f"{way:36} {seen}   latent {strayed:.3f} apart, picture {likeness:.1f} dB, {tally.saved:.0%} left out   "
            f"{'; '.join(faults)}"
        )
        return faults, strayed, likeness, tally


@pytest.fixture(scope="module")
def room(tables: dict[str, list[str]]) -> Room:
    return Room(tables)


@pytest.fixture(scope="module")
def asked() -> list[Case]:
    return exam(FULL[0], 1, KINDS)


@pytest.fixture(scope="module")
def one() -> list[Case]:
    """An edit with something outside it."""
    return exam(FULL[0], 1, [EditKind.RECOLOUR])


def around(case: Case, pixels: int = 6) -> torch.Tensor:
    """A mask [1, H, W] of what is to change and some pixels around it."""
    source, truth = (pictures([scene]) for scene in (case.scene, case.truth))
    change = ((source - truth).abs().amax(1) > 0.1).float()
    return functional.max_pool2d(change, 2 * pixels + 1, 1, pixels)


def test_a_cache_that_spoils_an_edit_or_saves_nothing_is_noticed(room: Room, asked: list[Case]) -> None:
    faults, strayed, likeness, tally = room.found(f"cache {CACHE}", asked, Wishes(cache=CACHE))
    assert not faults and strayed < 0.03 and likeness > 45
    assert tally.blocks_left > 0.35 * tally.blocks


def test_a_smaller_reference_that_is_judged_otherwise_than_is_told_is_noticed(room: Room, asked: list[Case]) -> None:
    """It was taught with references as large as the picture alone, and loses the picture with a smaller one."""
    faults, strayed, _, tally = room.found(f"reference {SMALLER:g}", asked, Wishes(smaller=SMALLER))
    assert tally.reference_left == tally.calls * (64 - 36) and tally.saved > 0.15
    assert faults and strayed > 0.5, "web/docs/KontextFast.md says that the demo model does not stand it"


def test_a_mask_that_spoils_an_edit_or_saves_nothing_is_noticed(room: Room, one: list[Case]) -> None:
    mask = around(one[0])
    faults, _, likeness, tally = room.found("mask", one, Wishes(settled=SETTLED, mask=mask))
    assert not faults and likeness > 28
    assert tally.tokens_left > 0.2 * tally.tokens


def test_a_cache_and_a_mask_together_that_spoil_an_edit_are_noticed(room: Room, one: list[Case]) -> None:
    mask = around(one[0])
    faults, _, _, tally = room.found("cache and mask", one, Wishes(cache=CACHE, settled=SETTLED, mask=mask))
    assert not faults and tally.saved > 0.3


def _kept_by_all_runs() -> AbstractContextManager[Any]:
    kept = FirstBlock()
    return mock.patch.object(Run, "first_block", lambda self, condition: kept)


def _wrong_order() -> AbstractContextManager[Any]:
    def kept(self: OneCall, tokens: torch.Tensor) -> torch.Tensor:
        return tokens if self.rows is None else tokens[:, self.rows.flip(0)]

    return mock.patch.object(OneCall, "kept", kept)


def test_a_cache_that_an_earlier_run_left_is_noticed(room: Room, asked: list[Case]) -> None:
    others = exam(FULL[0], 1, KINDS, seed=4000)
    with _kept_by_all_runs():
        room.editor.latents(others, STEPS, fast=Wishes(cache=0.5))
        faults, strayed, _, _ = room.found("mistake: a cache of another run", asked, Wishes(cache=0.5))
    assert faults and strayed > 0.1


def test_tokens_that_are_kept_in_another_order_are_noticed(room: Room, one: list[Case]) -> None:
    with _wrong_order():
        faults, *_ = room.found("mistake: tokens in another order", one, Wishes(settled=SETTLED, mask=around(one[0])))
    assert faults
