from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from comfy_server import comfy_service  # noqa: F401
from front_end import fresh_server, fresh_tab, server  # noqa: F401
from kontext_bridge.standin import StandIn, Timing


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[StandIn]:
    """A stand-in that this machine's account points at, with an empty ledger."""
    with StandIn(timing=Timing(queued_s=0.01, processing_s=0.05)) as stand_in:
        monkeypatch.setenv("OXEN_BASE_URL", stand_in.url)
        monkeypatch.setenv("OXEN_API_KEY", stand_in.key)
        monkeypatch.setenv("KONTEXT_BRIDGE_HOME", str(tmp_path / "home"))
        yield stand_in
