"""Rows into FP8 with as few passes over memory as a device allows; whichever way is taken, the bits are the same.

* Plain: the quotient in 32 bits, then its rounding.
* Written: the division itself writes FP8, where a device's does; a pass over 32-bit numbers less.
* Joined: difference, largest number and division as one kernel that a compiler makes, where there is Triton. One
  kernel serves every size, number of references and batch.

Each way is tried on a device, and held to the plain one bit for bit, before it is relied on.
"""

from __future__ import annotations

import importlib.util
import logging
import math
import time
from collections.abc import Callable
from typing import Any

import torch

from .failures import REFUSALS, first_line, is_about_the_machine, is_out_of_memory

logger = logging.getLogger(__name__)

MAX_E4M3 = 448.0
_E4M3 = torch.float8_e4m3fn
# A compiler rounds as torch does, number by number, only where it is told to; and no workers for three small kernels.
_AS_TORCH_ROUNDS: dict[str, Any] = {
    "emulate_precision_casts": True,
    "eager_numerics.division_rounding": True,
    "compile_threads": 1,
}
# Rows and columns of what ways are compared on. A compiler fits its kernels to the first that it sees.
_TRIED = ((2, 16), (33, 15360))
_USUAL = (4096, 3072)

Quantised = tuple[torch.Tensor, torch.Tensor]
_Way = Callable[[torch.Tensor, "torch.Tensor | None", bool], Quantised]

# Dictionaries and no cached functions: a compiler can look into them without leaving its graph.
_WRITES: dict[torch.device, bool] = {}
_JOINS: dict[torch.device, bool] = {}


def quantised(rows: torch.Tensor, mean: torch.Tensor | None = None, *, together: bool = False) -> Quantised:
    """`rows`, less `mean` where given, in e4m3, with a scale for each row or `together` one for all.

    rows: [M, K] in any float type. mean: [1, K] in the same. Gives [M, K] e4m3 and float32 [M, 1], or [1, 1] for all.
    """
    if torch.compiler.is_compiling():
        return _plain(rows, mean, together)
    device = rows.device
    # A compiler takes a single row for a case of its own; and what is joined was compared in bfloat16.
    if _JOINS.get(device) and len(rows) > 1 and rows.dtype == torch.bfloat16 and not (together and mean is None):
        try:
            return _joined(rows, mean, together)
        # Whatever a compiler, its cache or its own compilers raise costs a warning and not the edit.
        except Exception as error:
            if is_about_the_machine(error):
                raise
            _JOINS[device] = False
            logger.warning("Quantising in one kernel failed on %s, so it is done in several: %s", device, error)
    if device not in _WRITES:
        _WRITES[device] = _compared(device, _written, *_TRIED) is None
    return (_written if _WRITES[device] else _plain)(rows, mean, together)


def join_on(device: torch.device) -> None:
    """Find out whether one kernel does it all on this device; tried once, which takes seconds where it compiles."""
    if device in _JOINS:
        return
    why: str | None = "there is no Triton"
    if has_triton():
        # As edits run: a compiler makes other kernels for tensors that could be differentiated.
        try:
            with torch.inference_mode():
                why = _compared(device, _joined, _USUAL, *_TRIED) or _slower(device)
        # A compiler wraps what its kernels raise.
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            logger.info("Quantising on %s: there is no room for trying one kernel: %s", device, first_line(error))
            return  # tried again when a model is loaded
    _JOINS[device] = why is None
    logger.info("Quantising on %s: %s", device, "in one kernel" if why is None else f"in several kernels ({why})")


def has_triton() -> bool:
    """Whether Triton is installed, without importing it."""
    try:
        return importlib.util.find_spec("triton") is not None
    # Other packs put an empty module in its place, so that what they import finds one.
    except ValueError:
        return False


def _plain(rows: torch.Tensor, mean: torch.Tensor | None, together: bool) -> Quantised:
    rest = rows if mean is None else rows - mean
    scale = _scale(rest, together)
    # The largest number of a row may come out one rounding above MAX_E4M3, which the cast takes down again.
    return (rest / scale).to(_E4M3), scale


def _written(rows: torch.Tensor, mean: torch.Tensor | None, together: bool) -> Quantised:
    rest = rows if mean is None else rows - mean
    scale = _scale(rest, together)
    return torch.div(rest, scale, out=torch.empty_like(rest, dtype=_E4M3)), scale


def _scale(rows: torch.Tensor, together: bool) -> torch.Tensor:
    # In one operation, which reads the rows once and writes nothing of their size.
    largest: torch.Tensor = torch.linalg.vector_norm(rows, torch.inf, dim=1, keepdim=True, dtype=torch.float32)
    if together:
        # Never without dimensions: torch would round such a scale to the rows' type before it divides.
        largest = largest.amax(dim=0, keepdim=True)
    # Asked for here and no constant of this file, which a compiler would take for one that changes.
    # The smallest scale is for rows of zeros, by which must not be divided.
    return (largest / torch.finfo(_E4M3).max).clamp(min=1e-12)


# A compiler counts what it has compiled by the function.
def _each_row(rows: torch.Tensor) -> Quantised:
    return _plain(rows, None, False)


def _each_row_apart(rows: torch.Tensor, mean: torch.Tensor) -> Quantised:
    return _plain(rows, mean, False)


def _all_rows_apart(rows: torch.Tensor, mean: torch.Tensor) -> Quantised:
    return _plain(rows, mean, True)


_compiled: dict[Any, Any] = {}


def _joined(rows: torch.Tensor, mean: torch.Tensor | None, together: bool) -> Quantised:
    function = _each_row if mean is None else _all_rows_apart if together else _each_row_apart
    if function not in _compiled:
        _compiled[function] = torch.compile(function, dynamic=True, fullgraph=True, options=_AS_TORCH_ROUNDS)
    found: Quantised = _compiled[function](rows) if mean is None else _compiled[function](rows, mean)
    return found


def _compared(device: torch.device, way: _Way, *shapes: tuple[int, int]) -> str | None:
    """Why a way cannot be taken on the device; None where its bits are the plain one's."""
    try:
        for shape in shapes:
            rows = _uneven(*shape, device)
            for mean, together in _forms(rows):
                one, other = way(rows, mean, together), _plain(rows, mean, together)
                if not all(torch.equal(_bits(a), _bits(b)) for a, b in zip(one, other, strict=True)):
                    return "it rounds otherwise"
    # A compiler raises anything.
    except Exception as error:
        if is_about_the_machine(error) or not (way is _joined or isinstance(error, REFUSALS)):
            raise
        return first_line(error)
    return None


def _forms(rows: torch.Tensor) -> list[tuple[torch.Tensor | None, bool]]:
    """With which mean, and whether together, a layer's rows may be quantised."""
    mean = rows[1:2].clone()
    return [(None, False), (mean, False), (mean, True)]


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().view(torch.uint8)


def _uneven(rows: int, columns: int, device: torch.device) -> torch.Tensor:
    """Numbers [rows, columns] that are alike in every run; rows of many sizes, and the first of zeros."""
    waves = torch.arange(rows * columns, device=device, dtype=torch.float32).mul_(math.e).sin_().view(rows, columns)
    return (waves * torch.arange(rows, device=device, dtype=torch.float32)[:, None] ** 2).to(torch.bfloat16)


def _slower(device: torch.device) -> str | None:
    joined, several = _seconds(device, _joined), _seconds(device, _written)
    return None if joined < several else f"{joined * 1e3:.2f} ms, and {several * 1e3:.2f} ms in several kernels"


def _seconds(device: torch.device, way: _Way) -> float:
    rows = _uneven(*_USUAL, device)
    taken = []
    # The first runs choose and load kernels.
    for _ in range(8):
        torch.cuda.synchronize(device)
        start = time.perf_counter()
        for mean, together in _forms(rows):
            way(rows, mean, together)
        torch.cuda.synchronize(device)
        taken.append(time.perf_counter() - start)
    return min(taken)
