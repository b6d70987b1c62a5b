"""A LoRA file's tensors as changes of a model's layers, each checked, so that nothing is left out unnoticed."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path

import torch

from ..errors import LoraError
from ..fp8.compute import require_finite
from ..fp8.formats import FORMATS
from .files import TensorFile
from .layers import KONTEXT, Size
from .lora_config import adapter_config
from .lora_keys import ALPHA, BIAS, DIFF, DORA, DOWN, MAGNITUDE, MID, RESHAPE, SET, UP, UP_BIAS, layer_names
from .lora_kinds import AdapterKind, Change, Patch, fits, is_whole, kinds_of
from .lora_names import NamedRows, Targets
from .lora_once import Once

# By the names of layers, which must be of these models alone.
_OTHER_MODELS: tuple[tuple[str, str], ...] = (
    (r"input_blocks|down_blocks|mid_block|up_blocks|output_blocks", "a U-Net such as Stable Diffusion 1, 2 or XL"),
    (r"joint_blocks", "Stable Diffusion 3"),
    (r"transformer_blocks[._]\d+[._](img_mod|txt_mod|img_mlp|txt_mlp)", "Qwen-Image"),
    (r"individual_token_refiner|(img|txt)_mlp[._]fc[12]$|(_mod|modulation)[._]linear$", "HunyuanVideo"),
    (r"(?<!double_)(?<!single_)(?<!transformer_)blocks[._]\d+[._]((cross_attn|self_attn)[._][qkvo]$|ffn)", "Wan"),
    (r"double_stream_modulation|single_stream_modulation", "FLUX.2"),
    (r"distilled_guidance_layer", "Chroma"),
)
_CONTROLS = {
    128: "a LoRA of FLUX.1's structure controls (Canny, Depth)",
    384: "a LoRA of FLUX.1 Fill",
}
_BIASES = (BIAS, UP_BIAS)
# What numbers of an adapter are stored as; of others torch knows no arithmetic, or they are no plain numbers.
_NUMBERS = {
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
}


class Reader:
    """Reads one layer after the other into `patches` and `changes`, what two names say alike once.

    idle: how many layers the file has and leaves as they are.
    """

    def __init__(self, file: TensorFile, path: Path, size: Size) -> None:
        self.idle = 0
        self._file = file
        self._name = path.name
        self._config = adapter_config(file.metadata, path.name)
        self._size, self._targets = size, Targets(size)
        self._once = Once(path.name)

    @property
    def patches(self) -> tuple[Patch, ...]:
        return tuple(effect for effect in self._once.effects() if isinstance(effect, Patch))

    @property
    def changes(self) -> tuple[Change, ...]:
        return tuple(effect for effect in self._once.effects() if isinstance(effect, Change))

    def read(self, layer: str, names: Mapping[str, str]) -> None:
        """layer: its name in the file. names: of its tensors, by part. Raises LoraError or NonFinite."""
        self._check_types(names)
        parts = {part: name for part, name in names.items() if not self._is_nothing(part, name)}
        kind = self._kind(layer, parts)
        if kind is None:
            if parts or not names:
                raise self._half(layer)
            self.idle += 1
            return
        rows = self._targets.find(layer)
        if rows is None:
            raise self._foreign(layer, kind)
        alpha = self._alpha(parts.pop(ALPHA)) if ALPHA in parts else None
        tensors = {part: require_finite(self._file[name], f"{self._name}: {name}") for part, name in parts.items()}
        if rows.is_norm:
            self._norm(layer, kind, tensors, rows)
        elif kind in (AdapterKind.PLAIN, AdapterKind.DORA):
            self._product(layer, kind, tensors, alpha, rows)
        else:
            if kind is not AdapterKind.BIAS:
                self._other(layer, kind, tensors, alpha, rows)
            self._biases(layer, tensors, 1.0, rows)

    def _check_types(self, names: Mapping[str, str]) -> None:
        for name in names.values():
            kind = self._file.entries[name].dtype
            if kind not in _NUMBERS:
                raise LoraError(
                    f"{self._name} stores {name!r} as {str(kind).removeprefix('torch.')}, which is not read here. Save "
                    "it as float32, float16 or bfloat16."
                )

    def _is_nothing(self, part: str, name: str) -> bool:
        if part not in (DIFF, *_BIASES):
            return False
        tensor = self._file[name]
        # torch counts no FP8, whose zeros have both signs.
        return not bool((tensor.half() if tensor.dtype in FORMATS else tensor).count_nonzero())

    def _kind(self, layer: str, parts: Mapping[str, str]) -> AdapterKind | None:
        kinds = kinds_of(parts)
        if len(kinds) > 1:
            ways = ", ".join(kind.value for kind in kinds)
            raise LoraError(f"{self._name} changes {layer!r} in several ways at once ({ways}). Get the file again.")
        if MAGNITUDE in parts:
            raise LoraError(
                f"{self._name} is {AdapterKind.DORA.value}, in PEFT's own form (lora_magnitude_vector), which neither "
                "this pack nor ComfyUI's Load LoRA reads. Have its trainer write it for ComfyUI, or merge it into a "
                "model."
            )
        if "oft_diag" in parts:
            raise LoraError(
                f"{self._name} is {AdapterKind.OFT.value} in another form (oft_diag) than the one that this pack and "
                "ComfyUI's Load LoRA read. Have its trainer write it for ComfyUI, or merge it into a model."
            )
        if kinds:
            return kinds[0]
        return AdapterKind.BIAS if any(part in parts for part in _BIASES) else None

    def _product(
        self, layer: str, kind: AdapterKind, tensors: dict[str, torch.Tensor], own: float | None, rows: NamedRows
    ) -> None:
        if DOWN not in tensors or UP not in tensors:
            raise self._half(layer)
        down, up = _matrix(tensors[DOWN]), _matrix(tensors[UP])
        if MID in tensors:
            middle = _matrix(tensors[MID])
            if middle.ndim != 2 or down.ndim != 2 or middle.shape[1] != down.shape[0]:
                raise self._misfit(layer, kind, {MID: middle, DOWN: down}, rows)
            down = middle.float() @ down.float()
        self._check_shapes(layer, kind, down, up, rows)
        if RESHAPE in tensors and tensors[RESHAPE].tolist() != [rows.rows, rows.inputs]:
            raise LoraError(
                f"{self._name} makes {layer!r} larger, as {_CONTROLS[128]} does. Kontext has no such layer."
            )
        alpha = self._config.alpha(layer) if own is None else own
        scale = self._config.scale(alpha, rank=down.shape[0])
        if not math.isfinite(scale):
            raise LoraError(f"{self._name}: the alpha of {layer!r} is {alpha}. The file is damaged; get it again.")
        if kind is AdapterKind.PLAIN:
            for bfl, offset, part in rows.places:
                self._once.add(layer, rows, Patch(bfl, offset, down, up[part], scale))
        else:
            if tuple(tensors[DORA].shape) not in ((rows.rows, 1), (1, rows.inputs)):
                raise self._misfit(layer, kind, {DORA: tensors[DORA]}, rows)
            changed = {DOWN: down, UP: up, DORA: tensors[DORA]}
            self._change(layer, kind, changed, scale * down.shape[0], rows)
        self._biases(layer, tensors, scale, rows)

    def _check_shapes(
        self, layer: str, kind: AdapterKind, down: torch.Tensor, up: torch.Tensor, rows: NamedRows
    ) -> None:
        shapes = f"{list(down.shape)} and {list(up.shape)}"
        if down.ndim != 2 or up.ndim != 2 or not down.shape[0]:
            raise LoraError(
                f"{self._name}: {layer!r} has matrices of shape {shapes}, which are no LoRA of a linear layer."
            )
        if down.shape[0] != up.shape[1]:
            raise LoraError(
                f"{self._name}: the two matrices of {layer!r} have ranks {down.shape[0]} and {up.shape[1]}, which must "
                "be one. The file is damaged or was merged wrongly; get it again."
            )
        if down.shape[1] == rows.inputs and up.shape[0] == rows.rows:
            return
        if rows.places[0][0] == "img_in" and up.shape[0] == rows.rows and down.shape[1] in _CONTROLS:
            raise LoraError(
                f"{self._name} is {_CONTROLS[down.shape[1]]}: its {layer!r} reads {down.shape[1]} channels where "
                f"Kontext's reads {rows.inputs}. It cannot be used with Kontext."
            )
        raise self._misfit(layer, kind, {DOWN: down, UP: up}, rows)

    def _other(
        self, layer: str, kind: AdapterKind, tensors: dict[str, torch.Tensor], alpha: float | None, rows: NamedRows
    ) -> None:
        own = {part: tensor for part, tensor in tensors.items() if part not in _BIASES}
        if not is_whole(kind, own):
            raise self._half(layer, kind.value.partition(" ")[2])
        if kind is AdapterKind.OFT and own.get("oft_blocks", torch.empty(0)).ndim == 4:
            kind = AdapterKind.BOFT
        if not fits(kind, {part: tuple(tensor.shape) for part, tensor in own.items()}, rows.rows, rows.inputs):
            raise self._misfit(layer, kind, own, rows)
        rescale = own.get("rescale")
        if kind is AdapterKind.OFT and rescale is not None and not bool((rescale == 1).all()):
            raise LoraError(f"{self._name} is {kind.value} that rescales {layer!r}, which ComfyUI leaves out.")
        if len(rows.places) > 1 and kind not in (AdapterKind.LOHA, AdapterKind.LOKR, AdapterKind.DIFF):
            raise LoraError(
                f"{self._name} is {kind.value} of {layer!r}, whose rows have another order in ComfyUI. Take that layer "
                "out of the file."
            )
        self._change(layer, kind, own, alpha, rows)

    def _change(
        self, layer: str, kind: AdapterKind, tensors: dict[str, torch.Tensor], alpha: float | None, rows: NamedRows
    ) -> None:
        if alpha is not None and not math.isfinite(alpha):
            raise LoraError(f"{self._name}: the alpha of {layer!r} is {alpha}. The file is damaged; get it again.")
        bfl, offset, _ = min(rows.places, key=lambda place: place[1])
        changed = Change(kind, bfl, offset, rows.rows, len(rows.places) > 1, tensors, alpha)
        self._once.add(layer, rows, changed)

    def _norm(self, layer: str, kind: AdapterKind, tensors: dict[str, torch.Tensor], rows: NamedRows) -> None:
        if kind not in (AdapterKind.DIFF, AdapterKind.SET) or tensors.keys() - {DIFF, SET}:
            raise LoraError(f"{self._name} is {kind.value} and changes {layer!r}, which is a norm and no linear layer.")
        (part,) = tensors
        if tuple(tensors[part].shape) != (rows.rows,):
            raise self._misfit(layer, AdapterKind.NORM, tensors, rows)
        self._once.add(layer, rows, Change(AdapterKind.NORM, rows.places[0][0], 0, rows.rows, False, tensors, None))

    def _biases(self, layer: str, tensors: Mapping[str, torch.Tensor], scale: float, rows: NamedRows) -> None:
        for part in _BIASES:
            if part not in tensors:
                continue
            values = tensors[part]
            if tuple(values.shape) != (rows.rows,):
                raise self._misfit(layer, AdapterKind.BIAS, {part: values}, rows)
            factor = scale if part == UP_BIAS else 1.0
            for bfl, offset, some in rows.places:
                there = values[some]
                shift = Change(AdapterKind.BIAS, bfl, offset, len(there), False, {BIAS: there}, None, factor)
                self._once.add(layer, rows, shift)

    def _alpha(self, name: str) -> float:
        if self._file[name].numel() != 1:
            raise LoraError(f"{self._name}: {name!r} is not one number. The file is damaged; get it again.")
        return float(self._file[name])

    def _half(self, layer: str, what: str = "LoRA") -> LoraError:
        return LoraError(
            f"{self._name} has only part of the {what} of {layer!r}: the file is incomplete. Get it again."
        )

    def _misfit(self, layer: str, kind: AdapterKind, tensors: Mapping[str, torch.Tensor], rows: NamedRows) -> LoraError:
        shapes = " and ".join(str(list(tensor.shape)) for tensor in tensors.values())
        what = "" if kind is AdapterKind.PLAIN else f" It is {kind.value}."
        has = f"{rows.inputs} inputs and {rows.rows} outputs" if rows.inputs else f"{rows.rows} numbers"
        return LoraError(
            f"{self._name} was made for another model: {layer!r} has matrices of shape {shapes}, and this model's "
            f"layer has {has}.{what}"
        )

    def _foreign(self, layer: str, kind: AdapterKind) -> LoraError:
        names = set(layer_names(self._file))
        for pattern, model in _OTHER_MODELS:
            if any(re.search(pattern, name) for name in names):
                return LoraError(f"{self._name} was made for {model}, not for FLUX.1.")
        what = "" if kind is AdapterKind.PLAIN else f"is {kind.value} and "
        if self._size != KONTEXT and Targets(KONTEXT).find(layer) is not None:
            return LoraError(
                f"{self._name} {what}was made for a larger model: it changes {layer!r}, which this one does not have."
            )
        return LoraError(f"{self._name} {what}changes {layer!r}, which FLUX.1 Kontext does not have.")


def _matrix(tensor: torch.Tensor) -> torch.Tensor:
    """A matrix that some trainers write as a convolution of one pixel, [r, c, 1, 1]."""
    return tensor.flatten(1) if tensor.ndim > 2 and math.prod(tensor.shape[2:]) == 1 else tensor
