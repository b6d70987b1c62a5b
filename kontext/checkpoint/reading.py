"""A FLUX.1 Kontext file as named layers with their scales, whatever layout it is stored in.

FP8 files exist with no scales at all, with ComfyUI's older ones (`X.scale_weight`, `X.scale_input` and a marker
tensor `scaled_fp8`), and with its newer ones (`X.weight_scale`, `X.input_scale`, described by
`_quantization_metadata` in the header or by a `X.comfy_quant` tensor a layer). All become a `Weights` a layer.
Loaders that skip what they do not know turn these files into noise, so here every tensor of the model must be
accounted for: a missing, unknown or misshapen one ends the reading.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ..errors import DamagedFile, NonFinite, UnknownLayout
from ..fp8.devices import holds_fp8, no_fp8_there
from ..fp8.formats import FORMATS, dequantise
from ..fp8.products import rows_of
from .files import TensorFile, open_model
from .identify import COMPANIONS, GET_KONTEXT, identify
from .layers import HEAD, Naming, Role, Size, norms, roles_by_name, sizes_by_name
from .purpose import PURPOSE, Purpose, as_metadata, purpose_in

_WIDE = {torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16"}
_MARKER = "scaled_fp8"
_HINT = "comfy_quant"
_METADATA = "_quantization_metadata"
_FULL_PRECISION = "full_precision_matrix_mult"
_WEIGHT_SCALES = ("weight_scale", "scale_weight")
_INPUT_SCALES = ("input_scale", "scale_input")
# Formats of ComfyUI's that are not FP8 with one scale a layer or row.
_COMFYUI_FORMATS = {
    "mxfp8": "MXFP8",
    "nvfp4": "NVFP4",
    "int8_tensorwise": "INT8",
    "convrot_w4a4": "4-bit integers",
    "asym_w4a8_int8": "4-bit integers",
}
# The demo model's few megabytes may become four times as many.
_SMALL = 100_000_000
_LOAD_IT = "Load it with ComfyUI's own Load Diffusion Model, if your ComfyUI and GPU can. Or:"
# Words in a hint that say that the numbers are not the weights before they are turned or shifted back. Others, such as
# empty parameters or the shape before quantisation, change nothing; ComfyUI passes over them, too.
_CHANGING = re.compile(r"convrot$|hadamard|rotat|asym|codebook|zero_point|pre_quant|smooth|transpos|invers|reciprocal")


@dataclass(frozen=True)
class Weights:
    """One linear layer as the file has it, memory-mapped.

    weight: [N, K], FP8 or 16/32-bit float. scale: float32 of shape [] or [N], given exactly when weight is FP8.
    bias: [N]. full_precision: the file asks that this layer is not multiplied in FP8.
    """

    weight: torch.Tensor
    scale: torch.Tensor | None
    bias: torch.Tensor
    role: Role
    full_precision: bool

    def rows(self, start: int, count: int) -> Weights:
        """`count` rows of the layer from row `start` on, as views."""
        weight, scale, bias = rows_of(slice(start, start + count), self.weight, self.scale, self.bias)
        assert bias is not None
        return Weights(weight, scale, bias, self.role, self.full_precision)

    def widened(self) -> Weights:
        """The same numbers in float32, exactly, where they are FP8."""
        if self.scale is None:
            return self
        return replace(self, weight=dequantise(self.weight, self.scale, torch.float32), scale=None)


@dataclass(frozen=True)
class Checkpoint:
    """A FLUX.1 Kontext model on disk: its layers and norms by the file's own names, without the prefix."""

    path: Path
    naming: Naming
    size: Size
    labelled: bool
    purpose: Purpose
    linears: dict[str, Weights]
    norms: dict[str, torch.Tensor]
    layout: str
    files: tuple[TensorFile, ...]
    _prefix: str

    @property
    def is_fp8(self) -> bool:
        """Whether the file itself is quantised; a wide file is quantised while it is mounted."""
        return any(weights.scale is not None for weights in self.linears.values())

    @property
    def bytes(self) -> int:
        """Bytes of all weights in the file, without scales and vectors."""
        return sum(weights.weight.nbytes for weights in self.linears.values())

    def kept_on(self, device: torch.device) -> Checkpoint:
        """The same as the device can keep it, the demo model widened. Raises UnsupportedDevice for Kontext in FP8."""
        if not self.is_fp8 or holds_fp8(device):
            return self
        if self.purpose.called is None or self.bytes > _SMALL:
            raise no_fp8_there(device, self.path.name)
        return replace(self, linears={name: weights.widened() for name, weights in self.linears.items()})

    def release(self, layer: str) -> None:
        """Give the memory-mapped pages of a layer's weight back, once it has been copied elsewhere."""
        for file in self.files:
            if f"{self._prefix}{layer}.weight" in file.entries:
                file.release(f"{self._prefix}{layer}.weight")

    def doubts(self) -> str:
        """What there is to say of zeros, as a download leaves that was given its room and broke off; else nothing."""
        blank = [name for name, weights in self.linears.items() if _is_blank(weights.weight)]
        if not blank:
            return ""
        return (
            f"{len(blank)} of {len(self.linears)} layers of {self.path.name} are zeros, {blank[-1]} among them: it was "
            "likely not downloaded whole. Download it again."
        )

    def describe(self) -> str:
        """One line for a person: layout, names, size, bytes."""
        size = self.size
        return (
            f"{self.path.name}: {self.layout}, {self.naming.value} names, {size.doubles}+{size.singles} blocks of "
            f"width {size.hidden}, {self.bytes / 1e9:.2f} GB" + ("" if self.labelled else ", not labelled as Kontext")
        )


def _is_blank(weight: torch.Tensor) -> bool:
    # A whole file would be read for the other rows.
    return not any(bool(weight[row].contiguous().view(torch.uint8).any()) for row in (-1, len(weight) // 2, 0))


def read_checkpoint(path: Path | str, *, pruned: bool = False, read_only: bool = False) -> Checkpoint:
    """The model in a .safetensors file or a diffusers folder; nothing but headers and scales is read yet.

    pruned: also take models of FLUX.1's width with other block counts. read_only: as for `open_tensors`.
    Raises DamagedFile, UnknownLayout, WrongModel or NonFinite (a scale), each naming the file and, where it is one
    tensor's fault, the tensor.
    """
    path = Path(path)
    files = tuple(open_model(path, read_only=read_only))
    shapes = {name: entry.shape for file in files for name, entry in file.entries.items()}
    metadata = {key: value for file in files for key, value in file.metadata.items()}
    identity = identify(shapes, metadata, path, pruned=pruned)
    reader = _Reader(path, files, identity.prefix, identity.naming, identity.size, metadata)
    linears = reader.linears()
    vectors = reader.norms()
    purpose = purpose_in(metadata | as_metadata(reader.take(PURPOSE), path.name), path.name)
    reader.finish()
    return Checkpoint(
        path=path,
        naming=identity.naming,
        size=identity.size,
        labelled=identity.labelled,
        purpose=purpose,
        linears=linears,
        norms=vectors,
        layout=reader.layout(linears),
        files=files,
        _prefix=identity.prefix,
    )


class _Reader:
    """Takes a model's tensors one by one and remembers which are left."""

    def __init__(
        self,
        path: Path,
        files: tuple[TensorFile, ...],
        prefix: str,
        naming: Naming,
        size: Size,
        metadata: dict[str, str],
    ) -> None:
        self.path = path
        self.prefix = prefix
        self.naming = naming
        self.size = size
        self.left = dict(self._inside(files))
        self.scaled = any(name.endswith(tuple(f".{suffix}" for suffix in _WEIGHT_SCALES)) for name in self.left)
        self.hints = self._header_hints(metadata)
        self.marker = self._take_marker()

    def _inside(self, files: tuple[TensorFile, ...]) -> Iterator[tuple[str, TensorFile]]:
        for file in files:
            for name in file:
                if name.startswith(self.prefix) and not name.startswith(COMPANIONS):
                    yield name.removeprefix(self.prefix), file
                elif name == _MARKER:
                    yield name, file
                elif not name.startswith(COMPANIONS):
                    raise UnknownLayout(
                        f"{self.path.name} holds {name!r}, which is neither part of the transformer "
                        f"({self.prefix}...) nor of a text encoder or VAE. {GET_KONTEXT}"
                    )

    def take(self, name: str) -> torch.Tensor | None:
        file = self.left.pop(name, None)
        if file is None:
            return None
        full = name if name == _MARKER and name in file.entries else self.prefix + name
        return file[full]

    def need(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        tensor = self.take(name)
        if tensor is None:
            raise DamagedFile(f"{self.path.name} lacks {name!r}: it is incomplete. {GET_KONTEXT}")
        if tensor.dtype not in FORMATS and tensor.dtype not in _WIDE:
            kind = str(tensor.dtype).removeprefix("torch.")
            where = (
                "" if tensor.dtype.is_floating_point else " Load it with the program or node pack that wrote it. Or:"
            )
            raise UnknownLayout(
                f"{self.path.name}: {name!r} is stored as {kind}, which is not read here (FP8, bfloat16, float16 and "
                f"float32 are).{where} {GET_KONTEXT}"
            )
        if tensor.shape != shape:
            raise DamagedFile(
                f"{self.path.name}: {name!r} has the shape {list(tensor.shape)}, Kontext's has {list(shape)}. "
                f"{GET_KONTEXT}"
            )
        return tensor

    def linears(self) -> dict[str, Weights]:
        roles = roles_by_name(self.size, self.naming)
        found = {
            name: self._linear(name, shape, roles[name])
            for name, shape in sizes_by_name(self.size, self.naming).items()
        }
        unknown = sorted(set(self.hints) - set(found))
        if unknown:
            raise UnknownLayout(f"{self.path.name} describes the quantisation of {unknown[0]!r}, which it lacks.")
        return found

    def norms(self) -> dict[str, torch.Tensor]:
        found = {}
        for norm in norms(self.size):
            if self.naming is Naming.DIFFUSERS:
                found[norm.diffusers] = self.need(f"{norm.diffusers}.weight", (HEAD,))
            else:
                # ComfyUI saves these as `weight` since 0.14.
                suffix = "weight" if f"{norm.bfl}.weight" in self.left else "scale"
                found[norm.bfl] = self.need(f"{norm.bfl}.{suffix}", (HEAD,))
        return found

    def finish(self) -> None:
        """Raise UnknownLayout if the model has tensors that nothing here knows."""
        if self.left:
            names = sorted(self.left)
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise UnknownLayout(
                f"{self.path.name} has tensors that are not known here ({', '.join(names[:3])}{more}), and leaving "
                f"them out could change every picture. {GET_KONTEXT}"
            )

    def layout(self, linears: dict[str, Weights]) -> str:
        weights = linears.values()
        formats = sorted({FORMATS[w.weight.dtype] for w in weights if w.weight.dtype in FORMATS})
        if not formats:
            return f"{' and '.join(sorted({_WIDE[w.weight.dtype] for w in weights}))}, quantised on loading"
        kind = "without scales"
        if self.scaled:
            by_row = any(w.scale is not None and w.scale.ndim for w in weights)
            kind = f"with a scale per {'row' if by_row else 'layer'}"
        return f"{' and '.join(formats)} {kind}"

    def _linear(self, name: str, shape: tuple[int, int], role: Role) -> Weights:
        hint = self._hint(name)
        weight = self.need(f"{name}.weight", shape)
        bias = self.need(f"{name}.bias", shape[:1])
        scale = self._scale(name, _WEIGHT_SCALES, shape[0])
        # The file's own input scale is for static quantisation; rows are measured as they come, which is closer.
        self._scale(name, _INPUT_SCALES, 1)
        quantised = weight.dtype in FORMATS
        if hint is not None and hint["format"] != FORMATS.get(weight.dtype):
            raise UnknownLayout(
                f"{self.path.name} says that {name!r} is {hint['format']}, and stores {weight.dtype}. {GET_KONTEXT}"
            )
        if quantised and scale is None:
            if self.scaled:
                raise DamagedFile(f"{self.path.name} has scales, but {name!r} lacks its own. {GET_KONTEXT}")
            scale = torch.ones(())
        if not quantised and scale is not None:
            if not bool((scale == 1).all()):
                raise UnknownLayout(f"{self.path.name}: {name!r} has a scale but is not FP8. {GET_KONTEXT}")
            scale = None
        full_precision = self.marker == 2 or bool(hint and hint.get(_FULL_PRECISION, False))
        return Weights(weight, scale, bias, role, full_precision)

    def _take_marker(self) -> int:
        marker = self.take(_MARKER)
        if (marker is not None or self.hints) and not self.scaled:
            raise DamagedFile(f"{self.path.name} is marked as scaled FP8 and has no scales. {GET_KONTEXT}")
        if marker is not None and marker.numel() > 2:
            raise UnknownLayout(
                f"{self.path.name}: its {_MARKER!r} marker has {marker.numel()} elements. {GET_KONTEXT}"
            )
        return 0 if marker is None else marker.numel()

    def _scale(self, name: str, suffixes: tuple[str, str], rows: int) -> torch.Tensor | None:
        found = [suffix for suffix in suffixes if f"{name}.{suffix}" in self.left]
        if not found:
            return None
        if len(found) == 2:
            raise UnknownLayout(f"{self.path.name}: {name!r} has two scales, {found[0]} and {found[1]}. {GET_KONTEXT}")
        full = f"{name}.{found[0]}"
        scale = self.take(full)
        assert scale is not None
        if scale.ndim == 2 and scale.dtype in (torch.uint8, getattr(torch, "float8_e8m0fnu", torch.uint8)):
            raise UnknownLayout(
                f"{self.path.name} is stored in MXFP8 ({full!r} has a scale for every few numbers). {_LOAD_IT} "
                f"{GET_KONTEXT}"
            )
        if scale.dtype not in _WIDE or (scale.numel() != 1 and scale.shape not in ((rows,), (rows, 1))):
            raise UnknownLayout(
                f"{self.path.name}: {full!r} is {str(scale.dtype).removeprefix('torch.')} of shape "
                f"{list(scale.shape)}; known are one number a layer and one a row ({rows}). {GET_KONTEXT}"
            )
        scale = scale.to(torch.float32, copy=True)
        if not bool((torch.isfinite(scale) & (scale > 0)).all()):
            raise NonFinite(
                f"{self.path.name}: {full!r} is not a positive number: the file is damaged. Download it again. "
                f"{GET_KONTEXT}"
            )
        return scale.reshape(()) if scale.numel() == 1 else scale.reshape(rows)

    def _header_hints(self, metadata: dict[str, str]) -> dict[str, dict[str, Any]]:
        if _METADATA not in metadata:
            return {}
        try:
            layers = json.loads(metadata[_METADATA])["layers"]
            hints = {
                str(name).removeprefix(self.prefix): dict(hint)
                for name, hint in layers.items()
                if not str(name).startswith(COMPANIONS)
            }
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DamagedFile(f"{self.path.name}: its {_METADATA} cannot be read. {GET_KONTEXT}") from error
        return hints

    def _hint(self, name: str) -> dict[str, Any] | None:
        hint = self.hints.get(name)
        tensor = self.take(f"{name}.{_HINT}")
        if tensor is not None:
            try:
                hint = dict(json.loads(bytes(tensor.to(torch.uint8).tolist())))
            except (ValueError, TypeError, RecursionError) as error:
                raise DamagedFile(f"{self.path.name}: '{name}.{_HINT}' cannot be read. {GET_KONTEXT}") from error
        if hint is None:
            return None
        form = hint.get("format")
        # What is no text may have no hash either.
        form = form if isinstance(form, str) else repr(form)
        if form in _COMFYUI_FORMATS:
            raise UnknownLayout(
                f"{self.path.name} is stored in {_COMFYUI_FORMATS[form]} ({name!r} is {form!r}), which is not read "
                f"here. {_LOAD_IT} {GET_KONTEXT}"
            )
        parameters = hint.get("params")
        told = {**hint, **parameters} if isinstance(parameters, dict) else hint
        changing = sorted(key for key, value in told.items() if value and _CHANGING.search(str(key)))
        if form not in FORMATS.values() or changing:
            what = f"{form!r}" + (f" with {', '.join(changing)}" if changing else "")
            raise UnknownLayout(f"{self.path.name} stores {name!r} as {what}, which is not read here. {GET_KONTEXT}")
        return hint
