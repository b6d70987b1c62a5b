"""With a urllib3 that cannot keep what is promised nothing is sent, and the error says what to install."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import urllib3
from kontext_bridge.oxen.control import Control
from kontext_bridge.oxen.errors import Misconfigured
from kontext_bridge.oxen.http.fetch import Fetcher
from kontext_bridge.oxen.http.way import URLLIB3

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("version", ["1.26.20", "2.0.7", "1.21"])
def test_an_older_urllib3_is_named_before_anything_is_sent(
    remote: Any, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    (kept,) = remote.run(remote.edits())
    asked = sum(one.route != "events" for one in remote.server.requests)  # a stream that broke is opened anew
    monkeypatch.setattr(urllib3, "__version__", version)
    (outcome,) = remote.run(remote.edits(seed=99))
    assert isinstance(outcome.error, Misconfigured)
    assert f"version {version} here, and 2.1 or later is needed. Nothing was sent." in str(outcome.error)
    assert "pip install --upgrade 'urllib3>=2.1'" in str(outcome.error)
    with pytest.raises(Misconfigured, match="urllib3"):
        Fetcher(Control()).fetch("https://example.com/a.png")
    assert sum(one.route != "events" for one in remote.server.requests) == asked
    assert len(remote.server.billed) == 1
    (again,) = remote.run(remote.edits())
    assert again.picture == kept.picture, "what is here needs no library for the network"


@pytest.mark.parametrize("version", ["2.1.0", "2.8.0", "3.0", "2.10", "10.0.1.dev1", "unknown"])
def test_a_urllib3_that_is_new_enough_is_used(remote: Any, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(urllib3, "__version__", version)
    assert remote.run(remote.edits())[0].picture


def test_what_is_asked_for_is_what_is_declared() -> None:
    wanted = f"urllib3>={URLLIB3[0]}.{URLLIB3[1]}"
    for name in ("pyproject.toml", "requirements.txt"):
        assert re.search(rf'^\s*"?{re.escape(wanted)}"?,?$', (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE)
