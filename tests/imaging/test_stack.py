"""Pictures that come in any order lie in one IMAGE as if they had come in theirs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from kontext_bridge.imaging.codec import DecodedImage, to_tensors
from kontext_bridge.imaging.errors import ImageError
from kontext_bridge.imaging.stack import Placed, Stack

SIZES = ((6, 8), (6, 8), (9, 5), (6, 8))


def pictures(*, transparent: bool) -> list[DecodedImage]:
    random = np.random.default_rng(3)
    found = []
    for number, size in enumerate(SIZES):
        alpha = random.integers(0, 256, size, np.uint8) if transparent and number != 3 else None
        found.append(DecodedImage(random.integers(0, 256, (*size, 3), np.uint8), alpha, "image/png"))
    return found


@pytest.mark.parametrize("transparent", [False, True])
@pytest.mark.parametrize("there", [(0, 1, 2, 3), (0, 1, 3), (1, 3), (2, 3), (1, 2, 3), (2,), (0, 2)])
def test_in_whatever_order_they_come(there: tuple[int, ...], transparent: bool) -> None:
    all_of_them = pictures(transparent=transparent)
    expected = to_tensors([all_of_them[place] for place in there])
    for order in itertools.permutations(there):
        stack = Stack(len(SIZES))
        for place in order:
            left = stack.put(place, all_of_them[place])
            assert (left.width, left.height) == (all_of_them[place].width, all_of_them[place].height)
        stacked = stack.take(there)
        assert torch.equal(stacked.image, expected.image) and torch.equal(stacked.mask, expected.mask), order
        assert stacked.resized == expected.resized
        for place in stacked.resized:
            assert np.array_equal(stack.original(there[place]).rgb, all_of_them[there[place]].rgb)


def test_what_lies_in_the_stack_lies_nowhere_else() -> None:
    assert isinstance(Stack(1).put(0, pictures(transparent=True)[0]), Placed)


def test_nothing_at_all_is_an_error() -> None:
    with pytest.raises(ImageError, match="no picture"):
        Stack(2).take([])


def test_where_no_memory_is_left_it_is_said_in_pythons_words_and_not_in_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_: object, **__: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    one, *_, other, _ = pictures(transparent=False)
    stack = Stack(2)
    stack.put(1, one)
    stack.put(0, other)
    monkeypatch.setattr(torch, "empty", none_left)
    for work in (lambda: stack.take([0, 1]), lambda: to_tensors([one]), lambda: Stack(1).put(0, one)):
        with pytest.raises(MemoryError):
            work()
