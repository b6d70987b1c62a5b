"""A disk that has no room left, as far as a process can have that for itself."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest


@contextlib.contextmanager
def full_disk(after: int = 1000) -> Iterator[None]:
    """No file that is written meanwhile can have more bytes than that: a real write fails half-way."""
    resource = pytest.importorskip("resource", reason="Windows limits no file's size")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (after, limit[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
