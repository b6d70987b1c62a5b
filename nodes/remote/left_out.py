"""Nodes that went on without what may still come: the next run asks again, where ComfyUI would serve its cache."""

from __future__ import annotations

from collections import Counter

_runs: Counter[str] = Counter()


def note(node_id: str | None) -> None:
    """Note that a run of the node left out what another may bring."""
    if node_id is not None:
        _runs[node_id] += 1


def runs(node_id: str | None) -> int:
    """How many runs of the node did: another number after each of them, and the same after one that brought all."""
    return 0 if node_id is None else _runs[node_id]
