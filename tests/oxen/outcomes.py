"""What tests look at in the outcomes of a run, and what they take away after it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kontext_bridge.oxen.jobs.order import How, Outcome


def hows(outcomes: Sequence[Outcome[Any]]) -> list[How | None]:
    """Where each picture came from; None for an edit that failed."""
    return [outcome.how for outcome in outcomes]


def errors(outcomes: Sequence[Outcome[Any]]) -> list[type | None]:
    return [outcome.error and type(outcome.error) for outcome in outcomes]


def without_files(remote: Any) -> None:
    """Delete the pictures that the ledger kept."""
    for file in (remote.home / "results").iterdir():
        file.unlink()
