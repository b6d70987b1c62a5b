"""The ways in which an adapter may change a layer, told apart by its tensors, with the shapes that each must have.

Only the first is a plain LoRA, which is computed beside the weights anywhere. The others need the written-out weight or
replace it; ComfyUI's own arithmetic does them inside ComfyUI (comfyui/lora.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

import torch

from .lora_keys import DIFF, DORA, DOWN, MAGNITUDE, SET, UP

PartShapes = Mapping[str, tuple[int, ...]]


class AdapterKind(Enum):
    """How a layer is changed; the value says it of a file."""

    PLAIN = "a plain LoRA"
    BIAS = "a LoRA that also changes biases"
    NORM = "a LoRA that also replaces whole weights (of norms)"
    DORA = "a DoRA, which also rescales the weights"
    LOHA = "a LoHa"
    LOKR = "a LoKr"
    OFT = "an OFT adapter"
    BOFT = "a BOFT adapter"
    GLORA = "a GLoRA"
    DIFF = "a LoRA that also replaces whole weights (it adds whole matrices)"
    SET = "a LoRA that also replaces whole weights"


_MADE_OF = {
    AdapterKind.LOHA: {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"},
    AdapterKind.OFT: {"oft_blocks"},
    AdapterKind.GLORA: {"a1.weight", "a2.weight", "b1.weight", "b2.weight"},
}


@dataclass(frozen=True)
class Patch:
    """A product added to rows of a BFL layer: `up @ down * scale`, from row `offset` on.

    down: [rank, inputs]. up: [rows, rank]. As in the file, copied out of it.
    """

    layer: str
    offset: int
    down: torch.Tensor
    up: torch.Tensor
    scale: float

    @property
    def rows(self) -> int:
        return self.up.shape[0]


@dataclass(frozen=True)
class Change:
    """What a file does to rows of a BFL layer or norm, other than adding a product of two matrices.

    offset, rows: of the layer, from row `offset` on. swapped: the rows' halves change places in BFL's layer.
    tensors: by part (lora_keys.py), as in the file. alpha: as in the file. scale: of a bias, 1 where nothing else
    is said.
    """

    kind: AdapterKind
    layer: str
    offset: int
    rows: int
    swapped: bool
    tensors: dict[str, torch.Tensor]
    alpha: float | None
    scale: float = 1.0


def kinds_of(parts: Mapping[str, object]) -> list[AdapterKind]:
    """The ways in which these parts change a layer's weight; more than one only in a file that contradicts itself."""
    starts = {name.partition("_")[0] for name in parts}
    found = []
    if DOWN in parts or UP in parts:
        found.append(AdapterKind.DORA if DORA in parts or MAGNITUDE in parts else AdapterKind.PLAIN)
    found += [
        kind
        for start, kind in (("hada", AdapterKind.LOHA), ("lokr", AdapterKind.LOKR), ("oft", AdapterKind.OFT))
        if start in starts
    ]
    if any(name[:2] in ("a1", "a2", "b1", "b2") for name in parts):
        found.append(AdapterKind.GLORA)
    found += [kind for part, kind in ((DIFF, AdapterKind.DIFF), (SET, AdapterKind.SET)) if part in parts]
    return found or ([AdapterKind.DORA] if DORA in parts or MAGNITUDE in parts else [])


def is_whole(kind: AdapterKind, parts: Mapping[str, object]) -> bool:
    """Whether every tensor is there that a change of this kind is made of, whatever their shapes."""
    if kind is AdapterKind.LOKR:
        return all(f"lokr_{w}" in parts or {f"lokr_{w}_a", f"lokr_{w}_b"} <= parts.keys() for w in ("w1", "w2"))
    return _MADE_OF.get(kind, set()) <= parts.keys()


def fits(kind: AdapterKind, shapes: PartShapes, rows: int, inputs: int) -> bool:
    """Whether tensors of these shapes change a weight [rows, inputs]. Others are skipped or garbled by ComfyUI."""
    shape = shapes.get
    if DORA in shapes and shape(DORA) not in ((rows, 1), (1, inputs)):
        return False
    if kind is AdapterKind.LOHA:
        return "hada_t1" not in shapes and all(
            _product(shape(f"hada_{w}_a"), shape(f"hada_{w}_b")) == (rows, inputs) for w in ("w1", "w2")
        )
    if kind is AdapterKind.LOKR:
        pair = [_lokr(shapes, w) for w in ("w1", "w2")]
        one, two = pair
        return one is not None and two is not None and (one[0] * two[0], one[1] * two[1]) == (rows, inputs)
    if kind in (AdapterKind.OFT, AdapterKind.BOFT):
        return _oft(shape("oft_blocks"), rows)
    if kind is AdapterKind.GLORA:
        return _glora(shapes, rows, inputs)
    return shape(DIFF if kind is AdapterKind.DIFF else SET) == (rows, inputs)


def _product(left: tuple[int, ...] | None, right: tuple[int, ...] | None) -> tuple[int, int] | None:
    if left is None or right is None or len(left) != 2 or len(right) != 2 or left[1] != right[0] or not left[1]:
        return None
    return left[0], right[1]


def _lokr(shapes: PartShapes, which: str) -> tuple[int, ...] | None:
    whole = shapes.get(f"lokr_{which}")
    if whole is None:
        return None if "lokr_t2" in shapes else _product(shapes.get(f"lokr_{which}_a"), shapes.get(f"lokr_{which}_b"))
    return whole if len(whole) == 2 else None


def _oft(blocks: tuple[int, ...] | None, rows: int) -> bool:
    if blocks is None or len(blocks) not in (3, 4) or blocks[-1] != blocks[-2] or math.prod(blocks[-3:-1]) != rows:
        return False
    widest = 2 ** (blocks[0] - 1) * blocks[-1] if len(blocks) == 4 else 1
    return blocks[0] > 0 and widest > 0 and rows % widest == 0 and (len(blocks) == 3 or blocks[-1] % 2 == 0)


def _glora(shapes: PartShapes, rows: int, inputs: int) -> bool:
    a1, a2, b1, b2 = (shapes.get(f"{name}.weight") for name in ("a1", "a2", "b1", "b2"))
    if _product(a1, a2) == (inputs, inputs) and _product(b1, b2) == (rows, inputs):
        return a2 is not None and b2 is not None and a2[0] == b2[0]
    # LyCORIS' first form, the other way round.
    return _product(a2, a1) == (inputs, inputs) and _product(b2, b1) == (rows, inputs)
