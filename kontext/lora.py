"""LoRA files in the spellings trainers use, as branches beside the layers, never merged into FP8.

Merging a LoRA into FP8 weights rounds most of its effect away. A branch is exact, can be removed or weighed anew,
and costs about a percent of the arithmetic. Read here: diffusers and PEFT (`lora_A`, alpha in the header), Black
Forest Labs, kohya (`lora_unet_...`, `.alpha`), ai-toolkit and OneTrainer, on BFL's or diffusers' layer names.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .errors import BadRequest, LoraError
from .files import TensorFile, open_tensors
from .layers import Layer, Naming, Size, layers
from .linear import Branch, Linear, require_finite

logger = logging.getLogger(__name__)

_DOWN = re.compile(r"(.+)\.(?:lora_A|lora_down|lora\.down)(?:\.default)?\.weight$")
_UP = re.compile(r"(.+)\.(?:lora_B|lora_up|lora\.up)(?:\.default)?\.weight$")
_ALPHA = re.compile(r"(.+)\.alpha$")
_TEXT_ENCODER = re.compile(r"^(lora_te\d?_|te\d?\.|text_encoders?(_\d)?\.|clip_[lg]\.|t5xxl\.)")
_PREFIXES = (
    "model.diffusion_model.",
    "base_model.model.",
    "diffusion_model.",
    "transformer.",
    "unet.",
    "lora_unet_",
    "lora_transformer_",
)
# Adapters that change a layer in another way than by adding a product of two matrices to it.
_OTHER_KINDS: tuple[tuple[str, str], ...] = (
    (r"dora_scale|lora_magnitude_vector", "a DoRA, which also rescales the weights"),
    (r"lokr_w", "a LoKr"),
    (r"hada_w", "a LoHa"),
    (r"lora_mid", "a LoCon with a middle matrix"),
    (r"oft_blocks|oft_diag", "an OFT adapter"),
    (r"\.(diff|diff_b|set_weight)$|lora_B\.bias$|norm\.scale$", "a LoRA that also replaces whole weights or biases"),
)
_OTHER_MODELS: tuple[tuple[str, str], ...] = (
    (r"input_blocks|down_blocks|mid_block|up_blocks|output_blocks", "Stable Diffusion 1, 2 or XL"),
    (r"joint_blocks|pos_embed", "Stable Diffusion 3"),
    (r"img_mod|txt_mlp\.net|img_mlp\.net", "Qwen-Image"),
    (r"blocks[._]\d+[._](cross_attn|self_attn|ffn)", "Wan"),
    (r"double_stream_modulation|single_stream_modulation", "FLUX.2"),
    (r"distilled_guidance_layer", "Chroma"),
)


@dataclass(frozen=True)
class Patch:
    """A product added to rows of a BFL layer: `up @ down * scale`, from row `offset` on.

    down: [rank, inputs]. up: [rows, rank]. As in the file, memory-mapped.
    """

    layer: str
    offset: int
    down: torch.Tensor
    up: torch.Tensor
    scale: float


@dataclass(frozen=True)
class Lora:
    """A LoRA file that fits a model of `size`. name: the file's, without suffix."""

    name: str
    size: Size
    patches: tuple[Patch, ...]


def read_lora(path: Path | str, size: Size) -> Lora:
    """The LoRA in a .safetensors file, checked against a model's size.

    Parts for text encoders are left out with a warning. Raises DamagedFile, NonFinite, or LoraError saying what
    the file is: made for another model, another kind of adapter, incomplete, or of ranks that do not match.
    """
    path = Path(path)
    file = open_tensors(path)
    _refuse(file, path, _OTHER_KINDS, "{name} is {what}. Only plain LoRA files can be added beside FP8 weights.")
    downs, ups, alphas = _sorted(file, path)
    _pair(downs, ups, alphas, path)
    header = _adapter_config(file, path)
    targets = _Targets(size)
    patches: list[Patch] = []
    for layer, down_name in downs.items():
        rows = targets.find(layer)
        if rows is None:
            _refuse(file, path, _OTHER_MODELS, "{name} was made for {what}, not for FLUX.1.")
            raise LoraError(
                f"{path.name} changes {layer!r}, which FLUX.1 Kontext does not have: it is for another model."
            )
        down, up = file[down_name], file[ups[layer]]
        _check_shapes(path, layer, down, up, rows)
        require_finite(down, f"{path.name}: {down_name}")
        require_finite(up, f"{path.name}: {ups[layer]}")
        alpha = _alpha(file, path, alphas[layer]) if layer in alphas else header.alpha(layer)
        scale = header.scale(alpha, rank=down.shape[0])
        if not math.isfinite(scale):
            raise LoraError(f"{path.name}: the alpha of {layer!r} is {alpha}. The file is damaged; get it again.")
        patches += [Patch(bfl, offset, down, up[part], scale) for bfl, offset, part in rows.places]
    return Lora(path.stem, size, tuple(patches))


def attach(linears: Mapping[str, Linear], naming: Naming, lora: Lora, strength: float) -> None:
    """Put the LoRA beside the layers it changes; one of the same name is replaced.

    linears: a model's layers by their names in `naming`. strength: any finite number, 1 as trained.
    """
    if not math.isfinite(strength):
        raise BadRequest(f"The strength of the LoRA {lora.name!r} is {strength}; it must be a number.")
    detach(linears, lora.name)
    parts = {layer.bfl: layer for layer in layers(lora.size)}
    for patch in lora.patches:
        places = [(patch.layer, patch.offset, slice(None))]
        if naming is Naming.DIFFUSERS:
            places = list(_overlaps(parts[patch.layer], patch))
        for name, offset, rows in places:
            linear = linears[name]
            device, dtype = linear.weight.device, torch.bfloat16 if linear.bias is None else linear.bias.dtype
            branch = Branch(
                patch.down.to(device, dtype), patch.up[rows].to(device, dtype), offset, patch.scale * strength
            )
            linear.branches.setdefault(lora.name, []).append(branch)


def detach(linears: Mapping[str, Linear], name: str) -> None:
    """Take the LoRA of this name away again, which leaves the layers exactly as they were."""
    for linear in linears.values():
        linear.branches.pop(name, None)


def linears_of(model: torch.nn.Module) -> dict[str, Linear]:
    """A model's layers by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Linear)}


def _overlaps(layer: Layer, patch: Patch) -> Iterator[tuple[str, int, slice]]:
    """Where a patch of a BFL layer falls in diffusers' layers: name, first row there, rows of the patch."""
    start, end = 0, patch.offset + patch.up.shape[0]
    for part in layer.parts:
        first, last = max(start, patch.offset), min(start + part.rows, end)
        if first < last:
            yield part.name, part.offset + first - start, slice(first - patch.offset, last - patch.offset)
        start += part.rows


@dataclass(frozen=True)
class _Rows:
    """A layer under the name a LoRA calls it: its size, and where its rows are in BFL's layers."""

    rows: int
    inputs: int
    places: tuple[tuple[str, int, slice], ...]


class _Targets:
    """Finds layers by any of the names LoRA files give them."""

    def __init__(self, size: Size) -> None:
        found: dict[str, _Rows] = {}
        for layer in layers(size):
            found[layer.bfl] = _Rows(layer.rows, layer.inputs, ((layer.bfl, 0, slice(None)),))
            start = 0
            for part in layer.parts:
                place = (layer.bfl, start, slice(part.offset, part.offset + part.rows))
                earlier = found.get(part.name)
                places = (*(earlier.places if earlier else ()), place)
                found[part.name] = _Rows((earlier.rows if earlier else 0) + part.rows, layer.inputs, places)
                start += part.rows
        self._found = {name.replace(".", "_"): rows for name, rows in found.items()}

    def find(self, name: str) -> _Rows | None:
        # Stacked prefixes occur (`base_model.model.transformer....`).
        while True:
            rows = self._found.get(name.replace(".", "_"))
            prefix = next((p for p in _PREFIXES if name.startswith(p)), None)
            if rows is not None or prefix is None:
                return rows
            name = name.removeprefix(prefix)


def _sorted(file: TensorFile, path: Path) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """The file's names by layer: downs, ups, alphas."""
    kinds: tuple[dict[str, str], ...] = ({}, {}, {})
    skipped = 0
    for name in file:
        if _TEXT_ENCODER.match(name):
            skipped += 1
            continue
        for pattern, names in zip((_DOWN, _UP, _ALPHA), kinds, strict=True):
            match = pattern.match(name)
            if match:
                if match.group(1) in names:
                    raise LoraError(f"{path.name} has two matrices for {match.group(1)!r}. Get the file again.")
                names[match.group(1)] = name
                break
        else:
            raise LoraError(f"{path.name} holds {name!r}, which is no part of a LoRA known here.")
    if skipped:
        logger.warning("%s also changes the text encoders (%d tensors); that part is left out.", path.name, skipped)
    downs, ups, alphas = kinds
    return downs, ups, alphas


def _pair(downs: dict[str, str], ups: dict[str, str], alphas: dict[str, str], path: Path) -> None:
    lonely = sorted(set(downs) ^ set(ups)) or sorted(set(alphas) - set(downs))
    if lonely:
        raise LoraError(
            f"{path.name} has only part of the LoRA of {lonely[0]!r}: the file is incomplete. Get it again."
        )
    if not downs:
        raise LoraError(f"{path.name} changes nothing in the transformer.")


def _check_shapes(path: Path, layer: str, down: torch.Tensor, up: torch.Tensor, rows: _Rows) -> None:
    shapes = f"{list(down.shape)} and {list(up.shape)}"
    if down.ndim != 2 or up.ndim != 2:
        raise LoraError(f"{path.name}: {layer!r} has matrices of shape {shapes}, which are no LoRA of a linear layer.")
    if down.shape[0] != up.shape[1]:
        raise LoraError(
            f"{path.name}: the two matrices of {layer!r} have ranks {down.shape[0]} and {up.shape[1]}, which must be "
            "one. The file is damaged or was merged wrongly; get it again."
        )
    if down.shape[1] != rows.inputs or up.shape[0] != rows.rows:
        raise LoraError(
            f"{path.name} was made for another model: {layer!r} has matrices of shape {shapes}, and this model's layer "
            f"has {rows.inputs} inputs and {rows.rows} outputs."
        )


def _alpha(file: TensorFile, path: Path, name: str) -> float:
    if file[name].numel() != 1:
        raise LoraError(f"{path.name}: {name!r} is not one number. The file is damaged; get it again.")
    return float(file[name])


def _refuse(file: TensorFile, path: Path, table: tuple[tuple[str, str], ...], text: str) -> None:
    for pattern, what in table:
        if any(re.search(pattern, name) for name in file):
            raise LoraError(text.format(name=path.name, what=what))


@dataclass(frozen=True)
class _AdapterConfig:
    """PEFT's settings where the header has them; without them a layer's scale is 1."""

    default: float | None
    by_layer: dict[str, float]
    by_root: bool

    def alpha(self, layer: str) -> float | None:
        for pattern, value in self.by_layer.items():
            if layer == pattern or layer.endswith(f".{pattern}"):
                return value
        return self.default

    def scale(self, alpha: float | None, rank: int) -> float:
        if alpha is None:
            return 1.0
        return alpha / (math.sqrt(rank) if self.by_root else rank)


def _adapter_config(file: TensorFile, path: Path) -> _AdapterConfig:
    try:
        saved: dict[str, Any] = json.loads(file.metadata.get("lora_adapter_metadata", "{}"))
        config = {key.removeprefix("transformer."): value for key, value in saved.items()}
        default = config.get("lora_alpha")
        return _AdapterConfig(
            default=None if default is None else float(default),
            by_layer={str(k): float(v) for k, v in (config.get("alpha_pattern") or {}).items()},
            by_root=bool(config.get("use_rslora", False)),
        )
    except (ValueError, TypeError, AttributeError) as error:
        raise LoraError(f"{path.name}: its adapter settings cannot be read. Get the file again.") from error
