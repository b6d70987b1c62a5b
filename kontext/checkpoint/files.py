"""Safetensors files as memory-mapped tensors: nothing is read before it is used, nothing is held twice.

The format is a little-endian 64-bit length, a JSON header of that length, then the tensors' bytes
(https://github.com/huggingface/safetensors#format). It is read here rather than through the safetensors
package for three reasons: a damaged file can be described to the person who has it, pages can be given back
to the system once they are on the GPU, and nothing about a tensor is changed on the way.
"""

from __future__ import annotations

import errno
import json
import logging
import math
import mmap
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..errors import CheckpointError, DamagedFile, UnknownLayout

logger = logging.getLogger(__name__)

_DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
# Types that not every torch has.
for _name, _known in {
    "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "U16": "uint16",
    "U32": "uint32",
    "U64": "uint64",
    "C64": "complex64",
}.items():
    if hasattr(torch, _known):
        _DTYPES[_name] = getattr(torch, _known)
# Vectors, which are changed in place now and then, and no weight of FLUX's blocks.
_COPIED, _NOTHING = 1_000_000, -1
_MAX_HEADER = 100_000_000
# torch counts with 64 bits.
_TOO_MANY = 2**63
_PICKLE = "a pickle, which may run code on loading: get a .safetensors file"
_PAGE = "a web page: the download returned an error or a login page; download it again"
_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer, not the model: fetch the file itself (git lfs pull)"),
    (b"GGUF", "a GGUF file: it needs ComfyUI-GGUF's loader; get a .safetensors file instead"),
    (b"PK\x03\x04", "a PyTorch .pt/.ckpt/.pth archive, which may run code on loading: get a .safetensors file"),
    # One for each version of the format.
    *((b"\x80" + bytes([version]), _PICKLE) for version in range(2, 6)),
    *((start, _PAGE) for start in (b"<!", b"<html", b"<head", b"<?xml")),
)
# What may stand before a text: a byte order mark and empty lines.
_BEFORE_TEXT = b"\xef\xbb\xbf \t\r\n"
_LOOKED_AT, _SHORTEST_TEXT = 256, 8
# How Windows tells that memory is short, or its page file.
_SHORT_ON_WINDOWS = (8, 14, 1455)
# Of a whole path, and a byte at its end.
_WINDOWS_PATH = 260


@dataclass(frozen=True)
class Entry:
    """One tensor of a file: its type and shape, and where its bytes lie, counted from the file's start."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True)
class TensorFile(Mapping[str, torch.Tensor]):
    """An open safetensors file: names to tensors that are views of the memory map.

    The map is private, so writing to a tensor never reaches the file. It lives as long as any tensor does. Of a file
    that is too large for that the map is read only: its small tensors are copies, which may be changed, and the large
    ones must not be written to. A file that was opened to be read only has no copies either; of one that was opened
    `detached` all are.
    """

    path: Path
    entries: dict[str, Entry]
    metadata: dict[str, str]
    _map: mmap.mmap = field(repr=False)
    _copied: float = field(repr=False)
    _stamp: tuple[int, ...] = field(repr=False)

    def __getitem__(self, name: str) -> torch.Tensor:
        entry = self.entries[name]
        count = math.prod(entry.shape)
        if count == 0:
            return torch.empty(entry.shape, dtype=entry.dtype)
        if entry.start % entry.dtype.itemsize:
            # Writers that do not pad the header leave tensors at odd addresses, which torch must not see.
            data = self._view(torch.uint8, entry.stop - entry.start, entry.start).clone().view(entry.dtype)
            return data.view(entry.shape)
        tensor = self._view(entry.dtype, count, entry.start).view(entry.shape)
        return tensor.clone() if entry.stop - entry.start <= self._copied else tensor

    def _view(self, dtype: torch.dtype, count: int, start: int) -> torch.Tensor:
        with warnings.catch_warnings():
            # That memory must not be written to is known here.
            warnings.filterwarnings("ignore", "The given buffer is not writable", UserWarning)
            return torch.frombuffer(self._map, dtype=dtype, count=count, offset=start)

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def whole(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
        """Which of `tensors` are one of this file's, where it lies in the map and in full: their names, to the file's.

        What was copied, cast, cut, joined or turned is none of the file's any more.
        """
        base = self._view(torch.uint8, 1, 0).data_ptr()
        starts = {base + entry.start: name for name, entry in self.entries.items() if entry.stop > entry.start}
        found = {}
        for name, tensor in tensors.items():
            inside = starts.get(tensor.data_ptr()) if tensor.device.type == "cpu" else None
            if inside is not None and tensor.is_contiguous():
                entry = self.entries[inside]
                if tensor.dtype == entry.dtype and tensor.shape == entry.shape:
                    found[name] = inside
        return found

    def is_unchanged(self) -> bool:
        """Whether there is still the same file under this path as when it was opened."""
        try:
            return _stamp(self.path) == self._stamp
        except OSError:
            return False

    def release(self, name: str) -> None:
        """Give the pages of a tensor back to the system; they are read again if the tensor is used again."""
        entry = self.entries[name]
        page = mmap.PAGESIZE
        start, stop = -(-entry.start // page) * page, entry.stop // page * page
        # Windows has no such call, and takes pages back by itself.
        if sys.platform != "win32" and stop > start and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED, start, stop - start)


def open_tensors(path: Path, *, read_only: bool = False, detached: bool = False) -> TensorFile:
    """The file's tensors, memory-mapped.

    read_only: nobody writes to them or pins them where they lie, so the system need not set memory aside for them.
    detached: they are copies. Windows lets nobody write to a mapped file, and elsewhere reading what another has cut
    off ends the program. Raises DamagedFile if the file is missing, cut short, malformed or of another kind, and
    CheckpointError if it cannot be read; the text says which.
    """
    try:
        return _opened(path, read_only or detached, detached)
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read: {error.strerror or error}. Another program may have it open, its drive or share "
            f"may be gone, or you lack the permission.{too_long(path)}"
        ) from error


def _opened(path: Path, read_only: bool, detached: bool) -> TensorFile:
    if not path.is_file():
        raise DamagedFile(f"There is no file at {path}.{too_long(path)}")
    # Before it is opened: should it be replaced just then, it counts as changed.
    stamp = _stamp(path)
    with path.open("rb") as handle:
        size = path.stat().st_size
        header, data_start = _read_header(path, handle.read(_LOOKED_AT), handle, size)
        entries = _entries(path, header, data_start, size)
        metadata = header.get("__metadata__") or {}
        if not isinstance(metadata, dict):
            raise DamagedFile(f"{path.name} has a malformed header (its metadata is not a table). Download it again.")
        told = {str(key): str(value) for key, value in metadata.items()}
        mapped, is_writable = _mapped(path, handle.fileno(), read_only)
    copied = math.inf if detached else _NOTHING if is_writable or read_only else _COPIED
    return TensorFile(path, entries, told, mapped, copied, stamp)


def too_long(path: Path) -> str:
    """What to say more of a path that is too long for Windows; else nothing."""
    length = len(str(path.absolute()))
    if sys.platform != "win32" or length < _WINDOWS_PATH:
        return ""
    return (
        f" Its path has {length} characters, and Windows takes {_WINDOWS_PATH - 1} unless long paths are switched on."
    )


def _stamp(path: Path) -> tuple[int, ...]:
    told = path.stat()
    return told.st_ino, told.st_size, told.st_mtime_ns


def _mapped(path: Path, descriptor: int, read_only: bool) -> tuple[mmap.mmap, bool]:
    """The file as memory, and whether that may be written to."""
    # Writable, since a GPU's driver pins only such pages. The system sets memory aside for all of them. Maps that are
    # read only are shared, which not every drive offers.
    ways = (mmap.ACCESS_READ, mmap.ACCESS_COPY) if read_only else (mmap.ACCESS_COPY, mmap.ACCESS_READ)
    failures: list[OSError] = []
    for way in ways:
        try:
            mapped = mmap.mmap(descriptor, 0, access=way)
        except OSError as error:
            failures.append(error)
            continue
        if failures and way == mmap.ACCESS_READ:
            logger.warning(
                "%s is larger than the memory and swap that are left (%s), so it is read in place: bringing its "
                "weights to a GPU is slower that way.",
                path.name,
                failures[0],
            )
        return mapped, way == mmap.ACCESS_COPY
    raise _no_room(path, failures[-1])


def _no_room(path: Path, error: OSError) -> CheckpointError:
    if error.errno == errno.ENOMEM or getattr(error, "winerror", None) in _SHORT_ON_WINDOWS:
        return CheckpointError(
            f"{path.name} cannot be opened: the system has no room for a file of this size ({error}). Close other "
            "programs, make the page file (swap) larger, or use a smaller file: FP8 takes half of 16 bits."
        )
    return CheckpointError(
        f"{path.name} cannot be mapped where it lies ({error}), as on some network shares and cloud drives. Copy it to "
        "a drive of this computer."
    )


def _read_header(path: Path, start: bytes, handle: Any, size: int) -> tuple[dict[str, Any], int]:
    length = int.from_bytes(start[:8], "little")
    # Some lengths are the marks of other files. A header is a table, and begins as one.
    if start[8:9] != b"{" or length > _MAX_HEADER:
        for signature, meaning in _SIGNATURES:
            if start.lstrip(_BEFORE_TEXT).lower().startswith(signature.lower()):
                raise DamagedFile(f"{path.name} is {meaning}.")
        if what := _no_tensors(start):
            raise DamagedFile(f"{path.name} {what}")
    if size < 8 or not 2 <= length <= _MAX_HEADER:
        raise DamagedFile(f"{path.name} is not a safetensors file, or its first bytes are damaged. Download it again.")
    if 8 + length > size:
        raise DamagedFile(
            f"{path.name} ends inside its header: it has {size} bytes and needs more than {8 + length}. "
            "The download was cut short; download it again."
        )
    handle.seek(8)
    try:
        header = json.loads(handle.read(length))
    except (ValueError, RecursionError) as error:
        raise DamagedFile(f"{path.name} has a header that cannot be read ({error}). Download it again.") from error
    if not isinstance(header, dict):
        raise DamagedFile(f"{path.name} has a header that is no table of tensors. Download it again.")
    return header, 8 + length


def _no_tensors(start: bytes) -> str:
    """What a download has left in a model's place, by its first bytes; empty where that cannot be told."""
    if not start:
        return "is empty. Download it again."
    if not any(start):
        return "is not a safetensors file: it begins with zeros, so its download broke off. Download it again."
    text = start.lstrip(_BEFORE_TEXT).decode("utf-8", errors="ignore")
    if len(text) < _SHORTEST_TEXT or not all(one.isprintable() or one in "\r\n\t" for one in text):
        return ""
    # Not what it says, which may be anything.
    return (
        "is a text and no model, such as a server's answer: open it in an editor to read why, and download it again, "
        "signed in where that is asked for."
    )


def _entries(path: Path, header: dict[str, Any], data_start: int, size: int) -> dict[str, Entry]:
    entries = {name: _entry(path, name, value, data_start) for name, value in header.items() if name != "__metadata__"}
    position = data_start
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].stop)):
        if entry.start != position:
            raise DamagedFile(f"{path.name}: the bytes of {name!r} overlap or leave a gap. Download it again.")
        position = entry.stop
    if position != size:
        what = f"{position - size} bytes are missing" if position > size else f"{size - position} bytes too many"
        raise DamagedFile(
            f"{path.name} has {size} bytes where its header promises {position}: {what}. "
            "The download was cut short or the file is damaged; download it again."
        )
    return entries


def _entry(path: Path, name: str, value: Any, data_start: int) -> Entry:
    try:
        kind, shape, (start, stop) = value["dtype"], tuple(value["shape"]), value["data_offsets"]
        sane = all(type(n) is int and 0 <= n < _TOO_MANY for n in (*shape, start, stop))
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedFile(f"{path.name}: the header entry of {name!r} is malformed.") from error
    if not isinstance(kind, str) or kind not in _DTYPES:
        raise UnknownLayout(f"{path.name}: {name!r} has the number format {kind!r}, which is not read here.")
    dtype = _DTYPES[kind]
    if not sane or stop - start != math.prod(shape) * dtype.itemsize:
        raise DamagedFile(f"{path.name}: the size of {name!r} does not match its shape {list(shape)}.")
    return Entry(dtype, shape, data_start + start, data_start + stop)


_INDEX = "diffusion_pytorch_model.safetensors.index.json"


def open_model(path: Path, *, read_only: bool = False) -> list[TensorFile]:
    """The files of a model: one file, or all shards of a diffusers folder (or of its `transformer` folder).

    read_only: as for `open_tensors`. Raises DamagedFile if there is nothing to read, a shard is missing, or two shards
    hold the same tensor.
    """
    if not path.is_dir():
        return [open_tensors(path, read_only=read_only)]
    folder = path / "transformer" if (path / "transformer").is_dir() else path
    files = [open_tensors(shard, read_only=read_only) for shard in _shards(folder)]
    names = [name for file in files for name in file]
    if len(names) != len(set(names)):
        raise DamagedFile(f"Two shards in {folder.name} hold the same tensor. Download the folder again.")
    return files


def _shards(folder: Path) -> list[Path]:
    index = folder / _INDEX
    if not index.is_file():
        found = sorted(folder.glob("*.safetensors"))
        if len(found) != 1:
            what = "no .safetensors file" if not found else f"{len(found)} .safetensors files and no {_INDEX}"
            raise DamagedFile(f"The folder {folder} has {what}; name the one file to use.")
        return found
    try:
        names = sorted({str(name) for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedFile(f"{index.name} in {folder} cannot be read. Download it again.") from error
    missing = [name for name in names if Path(name).name != name or not (folder / name).is_file()]
    if missing or not names:
        raise DamagedFile(f"{folder} lacks these parts of the model: {', '.join(missing) or 'all'}. Download them.")
    return [folder / name for name in names]
