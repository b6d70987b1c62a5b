"""What a profiler of torch saw of a stretch of work: the kernels, and which of their time is whose."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

QUANTISING = "quantising"
KINDS = ("linear", "attention", QUANTISING, "rest")
# By words in the names of torch's operators. comfy-kitchen's have its own name before them.
_WORDS = {
    "attention": ("scaled_dot_product", "flash_attn", "sage_attn"),
    QUANTISING: (QUANTISING, "quantize"),
    "linear": ("addmm", "aten::mm", "aten::bmm", "_scaled_mm", "aten::linear"),
}


def kind_of(name: str) -> str | None:
    return next((kind for kind, words in _WORDS.items() if any(word in name for word in words)), None)


def on_gpu(event: Any) -> bool:
    """Whether an event, or an average of such, is what the device did: a kernel or a copy.

    An operator has the time of its kernels, which are told themselves; what is annotated, that of all that it spans.
    Whoever adds these up as well counts everything twice.
    """
    return str(event.device_type).endswith(("CUDA", "PrivateUse1")) and not getattr(event, "is_user_annotation", False)


def shares(events: Iterable[Any]) -> dict[str, float]:
    """Which part of the device's time, of the computer's where there is no other, each of KINDS took; {} of none.

    events: FunctionEvents. A kernel counts for the innermost operator around it that has a kind.
    """
    events = list(events)
    device = sum(event.time_range.elapsed_us() for event in events if on_gpu(event))
    found: Counter[str] = Counter()
    spanned = 0.0
    for event in events:
        if on_gpu(event):
            continue
        if not str(event.device_type).endswith("CPU"):
            # An annotation on the device: kernels that no operator of torch launched, as Triton's, are only seen so.
            spanned += event.time_range.elapsed_us() if event.name == QUANTISING else 0.0
            continue
        own = sum(kernel.duration for kernel in event.kernels) if device else event.self_cpu_time_total
        if own and (kind := _around(event)):
            found[kind] += own
    found[QUANTISING] = max(found[QUANTISING], spanned)
    whole = device or sum(event.self_cpu_time_total for event in events)
    if not whole:
        return {}
    parts = {kind: found[kind] / whole for kind in KINDS[:-1]}
    return {**parts, "rest": max(0.0, 1 - sum(parts.values()))}


def _around(event: Any) -> str | None:
    while event is not None:
        if kind := kind_of(event.name):
            return kind
        event = event.cpu_parent
    return None


@contextmanager
def quantising_annotated() -> Iterator[None]:
    """Within the block a profiler sees what this pack's layers quantise inputs by under a name."""
    from kontext_bridge.kontext.fp8 import compute, devices, formats
    from torch.profiler import record_function

    def quantise_input(*given: Any, **named: Any) -> Any:
        with record_function(QUANTISING):
            return formats.quantise_input(*given, **named)

    with (
        mock.patch.object(compute, "quantise_input", quantise_input),
        mock.patch.object(devices, "quantise_input", quantise_input),
    ):
        yield
