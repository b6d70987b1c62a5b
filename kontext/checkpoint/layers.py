"""The layers of FLUX.1 under both of their names, and which rows of one are which rows of the other.

Black Forest Labs' files fuse query, key and value (and in single blocks the MLP's first layer) into one matrix;
diffusers keeps them apart. Going from one to the other is nothing but slicing and stacking rows, so a per-row
scale follows its rows, and an FP8 slice is a view of the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

HEAD = 128
AXES = (16, 56, 56)
LATENT_CHANNELS = 16
PATCHED_CHANNELS = 4 * LATENT_CHANNELS
TIME_CHANNELS = 256


class Naming(Enum):
    """Whose names a file uses."""

    BFL = "Black Forest Labs"
    DIFFUSERS = "diffusers"


class Role(Enum):
    """What a layer is: those within a block are worth quantising, the others are kept as they are.

    NORMED: within a block, right after a layer norm and its scale and shift.
    """

    NORMED = "normed"
    BLOCK = "block"
    MODULATION = "modulation"
    OUTER = "outer"

    @property
    def in_block(self) -> bool:
        return self in (Role.NORMED, Role.BLOCK)


@dataclass(frozen=True)
class Size:
    """The sizes that tell one FLUX.1 from another: width, depths and the widths of its two text inputs."""

    hidden: int
    doubles: int
    singles: int
    context: int
    pooled: int

    @property
    def heads(self) -> int:
        return self.hidden // HEAD


KONTEXT = Size(hidden=3072, doubles=19, singles=38, context=4096, pooled=768)


@dataclass(frozen=True)
class Part:
    """`rows` rows of a diffusers layer, from row `offset` on."""

    name: str
    offset: int
    rows: int


@dataclass(frozen=True)
class Layer:
    """One linear layer by its BFL name; its rows, in order, are those of `parts`."""

    bfl: str
    inputs: int
    parts: tuple[Part, ...]
    role: Role

    @property
    def rows(self) -> int:
        return sum(part.rows for part in self.parts)


@dataclass(frozen=True)
class Norm:
    """The scale of one RMS norm over a head, by both names."""

    bfl: str
    diffusers: str


def _layer(bfl: str, inputs: int, role: Role, rows: dict[str, int]) -> Layer:
    return Layer(bfl, inputs, tuple(Part(name, 0, count) for name, count in rows.items()), role)


def _double(i: int, h: int) -> Iterator[Layer]:
    b, d = f"double_blocks.{i}.", f"transformer_blocks.{i}."
    for stream, suffix, qkv, out in (
        ("img", "", ("to_q", "to_k", "to_v"), "to_out.0"),
        ("txt", "_context", ("add_q_proj", "add_k_proj", "add_v_proj"), "to_add_out"),
    ):
        yield _layer(f"{b}{stream}_mod.lin", h, Role.MODULATION, {f"{d}norm1{suffix}.linear": 6 * h})
        yield _layer(f"{b}{stream}_attn.qkv", h, Role.NORMED, {f"{d}attn.{name}": h for name in qkv})
        yield _layer(f"{b}{stream}_attn.proj", h, Role.BLOCK, {f"{d}attn.{out}": h})
        yield _layer(f"{b}{stream}_mlp.0", h, Role.NORMED, {f"{d}ff{suffix}.net.0.proj": 4 * h})
        yield _layer(f"{b}{stream}_mlp.2", 4 * h, Role.BLOCK, {f"{d}ff{suffix}.net.2": h})


def _single(i: int, h: int) -> Iterator[Layer]:
    b, d = f"single_blocks.{i}.", f"single_transformer_blocks.{i}."
    fused = {f"{d}attn.to_q": h, f"{d}attn.to_k": h, f"{d}attn.to_v": h, f"{d}proj_mlp": 4 * h}
    yield _layer(f"{b}modulation.lin", h, Role.MODULATION, {f"{d}norm.linear": 3 * h})
    yield _layer(f"{b}linear1", h, Role.NORMED, fused)
    yield _layer(f"{b}linear2", 5 * h, Role.BLOCK, {f"{d}proj_out": h})


def _outer(size: Size) -> Iterator[Layer]:
    h = size.hidden
    embed = "time_text_embed."
    yield _layer("img_in", PATCHED_CHANNELS, Role.OUTER, {"x_embedder": h})
    yield _layer("txt_in", size.context, Role.OUTER, {"context_embedder": h})
    for bfl, name, width in (
        ("time_in", "timestep_embedder", TIME_CHANNELS),
        ("guidance_in", "guidance_embedder", TIME_CHANNELS),
        ("vector_in", "text_embedder", size.pooled),
    ):
        yield _layer(f"{bfl}.in_layer", width, Role.OUTER, {f"{embed}{name}.linear_1": h})
        yield _layer(f"{bfl}.out_layer", h, Role.OUTER, {f"{embed}{name}.linear_2": h})
    # BFL's last modulation gives shift then scale, diffusers' scale then shift.
    swapped = (Part("norm_out.linear", h, h), Part("norm_out.linear", 0, h))
    yield Layer("final_layer.adaLN_modulation.1", h, swapped, Role.MODULATION)
    yield _layer("final_layer.linear", h, Role.OUTER, {"proj_out": PATCHED_CHANNELS})


def layers(size: Size) -> list[Layer]:
    """Every linear layer of a model of this size."""
    doubles = [layer for i in range(size.doubles) for layer in _double(i, size.hidden)]
    singles = [layer for i in range(size.singles) for layer in _single(i, size.hidden)]
    return [*_outer(size), *doubles, *singles]


def norms(size: Size) -> list[Norm]:
    """Every RMS norm of a model of this size; each scale has HEAD values."""
    found = []
    for i in range(size.doubles):
        for stream, added in (("img", ""), ("txt", "added_")):
            for kind, letter in (("query", "q"), ("key", "k")):
                bfl = f"double_blocks.{i}.{stream}_attn.norm.{kind}_norm"
                found.append(Norm(bfl, f"transformer_blocks.{i}.attn.norm_{added}{letter}"))
    for i in range(size.singles):
        for kind, letter in (("query", "q"), ("key", "k")):
            bfl = f"single_blocks.{i}.norm.{kind}_norm"
            found.append(Norm(bfl, f"single_transformer_blocks.{i}.attn.norm_{letter}"))
    return found


def sizes_by_name(size: Size, naming: Naming) -> dict[str, tuple[int, int]]:
    """Rows and columns of every linear layer, by its name."""
    if naming is Naming.BFL:
        return {layer.bfl: (layer.rows, layer.inputs) for layer in layers(size)}
    found: dict[str, tuple[int, int]] = {}
    for layer in layers(size):
        for part in layer.parts:
            rows, _ = found.get(part.name, (0, 0))
            found[part.name] = (rows + part.rows, layer.inputs)
    return found


def roles_by_name(size: Size, naming: Naming) -> dict[str, Role]:
    """What becomes of every linear layer, by its name."""
    if naming is Naming.BFL:
        return {layer.bfl: layer.role for layer in layers(size)}
    return {part.name: layer.role for layer in layers(size) for part in layer.parts}
