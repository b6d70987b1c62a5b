"""FLUX.1 Kontext [dev] at its full size without its numbers: a model and a LoRA of tensors that take no room."""

from __future__ import annotations

import json
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

import torch
from kontext_bridge.kontext.checkpoint.layers import HEAD, KONTEXT, Layer, Naming, Role, Size, layers, norms
from kontext_bridge.kontext.checkpoint.lora import Lora
from kontext_bridge.kontext.checkpoint.lora_kinds import Patch
from kontext_bridge.kontext.checkpoint.purpose import Purpose
from kontext_bridge.kontext.checkpoint.reading import Checkpoint, Weights
from kontext_bridge.kontext.fp8.formats import E4M3

CODES = {E4M3: "F8_E4M3", torch.bfloat16: "BF16", torch.float32: "F32"}
_Entry = tuple[str, torch.dtype, tuple[int, ...]]


def checkpoint(dtype: torch.dtype = E4M3, *, by_row: bool = False, size: Size = KONTEXT) -> Checkpoint:
    """The model as if read from a file of that type; made where fake tensors are, it is one of them."""

    def weights(layer: Layer) -> Weights:
        kind = dtype if layer.role is not Role.OUTER else torch.bfloat16
        scale = torch.ones((layer.rows,) if by_row else ()) if kind == E4M3 else None
        weight = torch.empty(layer.rows, layer.inputs, dtype=kind)
        return Weights(weight, scale, torch.empty(layer.rows, dtype=torch.bfloat16), layer.role, False)

    return Checkpoint(
        path=Path("kontext.safetensors"),
        naming=Naming.BFL,
        size=size,
        labelled=True,
        linears={layer.bfl: weights(layer) for layer in layers(size)},
        norms={norm.bfl: torch.empty(HEAD, dtype=torch.bfloat16) for norm in norms(size)},
        layout="float8_e4m3fn with a scale per layer",
        purpose=Purpose(),
        files=(),
        _prefix="",
    )


def lora(rank: int = 16, name: str = "style", size: Size = KONTEXT) -> Lora:
    """A LoRA of every layer of the blocks; query, key, value and MLP of a fused layer have matrices of their own."""
    patches = []
    for layer in layers(size):
        if layer.role.in_block:
            for start, part in layer.placed_parts():
                down, up = (torch.empty(shape, dtype=torch.bfloat16) for shape in _matrices(layer, part.rows, rank))
                patches.append(Patch(layer.bfl, start, down, up, 1.0))
    return Lora(name, size, tuple(patches))


def _matrices(layer: Layer, rows: int, rank: int) -> tuple[tuple[int, int], tuple[int, int]]:
    return (rank, layer.inputs), (rows, rank)


def write_sparse(path: Path, *, size: Size = KONTEXT, scaled: bool = True) -> Path:
    """A file of the released layout, all of whose numbers are zero and take no room on the disk.

    scaled: FP8 with a scale a layer; otherwise bfloat16.
    """
    return _write(path, _model(size, scaled))


def write_sparse_lora(path: Path, rank: int = 16, size: Size = KONTEXT) -> Path:
    """A LoRA's file by diffusers' names: query, key and value by themselves."""
    return _write(path, _lora(rank, size))


def lora_tensors(rank: int = 16, size: Size = KONTEXT) -> dict[str, torch.Tensor]:
    """What such a file holds, of tensors that take no room where fake ones are made."""
    return {name: torch.empty(shape, dtype=dtype) for name, dtype, shape in _lora(rank, size)}


def _model(size: Size, scaled: bool) -> Iterator[_Entry]:
    if scaled:
        yield "scaled_fp8", E4M3, (0,)
    for layer in layers(size):
        quantised = scaled and layer.role is not Role.OUTER
        yield f"{layer.bfl}.weight", E4M3 if quantised else torch.bfloat16, (layer.rows, layer.inputs)
        yield f"{layer.bfl}.bias", torch.bfloat16, (layer.rows,)
        if quantised:
            yield f"{layer.bfl}.scale_weight", torch.float32, ()
    for norm in norms(size):
        yield f"{norm.bfl}.scale", torch.bfloat16, (HEAD,)


def _lora(rank: int, size: Size) -> Iterator[_Entry]:
    for layer in layers(size):
        if layer.role.in_block:
            for part in layer.parts:
                down, up = _matrices(layer, part.rows, rank)
                yield f"transformer.{part.name}.lora_A.weight", torch.bfloat16, down
                yield f"transformer.{part.name}.lora_B.weight", torch.bfloat16, up


def _write(path: Path, entries: Iterator[_Entry]) -> Path:
    header: dict[str, Any] = {}
    # Odd sizes last, for whoever reads them needs numbers to start at multiples of their own size.
    place = 0
    for name, dtype, shape in sorted(entries, key=lambda entry: -entry[1].itemsize):
        size = prod(shape) * dtype.itemsize
        header[name] = {"dtype": CODES[dtype], "shape": list(shape), "data_offsets": [place, place + size]}
        place += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(file.tell() + place)
    return path
