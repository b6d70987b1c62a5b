"""What a LoRA file does to each layer, counted once where the file says it under two of the layer's names.

Converters leave a layer under two spellings in one file. ComfyUI's Load LoRA takes one of two names of the same rows
and adds up what names of a whole and of its parts say. So what is the same counts once, and two different things that
ComfyUI would take one of are refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from ..errors import LoraError
from .lora_keys import BIAS
from .lora_kinds import AdapterKind, Change, Patch
from .lora_names import NamedRows


@dataclass(frozen=True)
class _Said:
    """One effect, the name that it has in the file, and the rows of that name: the first one and how many."""

    name: str
    rows: tuple[int, int]
    effect: Patch | Change


class Once:
    """Collects the effects of one file."""

    def __init__(self, file_name: str) -> None:
        self._file = file_name
        self._said: dict[tuple[str, bool], list[_Said]] = {}

    def effects(self) -> Iterator[Patch | Change]:
        for said in self._said.values():
            yield from (one.effect for one in said)

    def add(self, name: str, rows: NamedRows, effect: Patch | Change) -> None:
        """name: of the layer, in the file, whose rows these are. Raises LoraError for what only one can be done of."""
        new = _Said(name, (min(first for _, first, _ in rows.places), rows.rows), effect)
        is_bias = isinstance(effect, Change) and effect.kind is AdapterKind.BIAS
        known = self._said.setdefault((effect.layer, is_bias), [])
        for other in [one for one in known if one.name != name]:
            if _is_in(effect, other.effect):
                return
            if _is_in(other.effect, effect):
                known[:] = [one for one in known if one is not other]
            elif other.rows == new.rows:
                raise LoraError(
                    f"{self._file} changes one layer under two names, {other.name!r} and {name!r}, in two ways, of "
                    "which ComfyUI's Load LoRA would take one alone. The file was merged wrongly; get it again."
                )
        known.append(new)


def _is_in(one: Patch | Change, other: Patch | Change) -> bool:
    """Whether `other` does to the rows of `one`, all of which it has, what `one` does."""
    start = one.offset - other.offset
    if start < 0 or start + one.rows > other.rows:
        return False
    rows = slice(start, start + one.rows)
    if isinstance(one, Patch) and isinstance(other, Patch):
        return one.scale == other.scale and _same(one.down, other.down) and _same(one.up, other.up[rows])
    if not isinstance(one, Change) or not isinstance(other, Change) or one.kind is not other.kind:
        return False
    if one.kind is AdapterKind.BIAS:
        return one.scale == other.scale and _same(one.tensors[BIAS], other.tensors[BIAS][rows])
    return (
        (one.rows, one.swapped, one.alpha) == (other.rows, other.swapped, other.alpha)
        and one.tensors.keys() == other.tensors.keys()
        and all(_same(tensor, other.tensors[part]) for part, tensor in one.tensors.items())
    )


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    # torch compares no FP8.
    return one.shape == other.shape and torch.equal(one.float(), other.float())
