from __future__ import annotations

import time
from pathlib import Path

import pytest
from kontext_bridge.oxen.control import Control, Deadline
from kontext_bridge.oxen.errors import TimedOut
from kontext_bridge.oxen.locks import hold


def test_a_lock_that_another_run_keeps_is_waited_for_until_the_deadline(tmp_path: Path) -> None:
    control = Control()
    with hold(tmp_path, "key", control):
        since = time.monotonic()
        with (
            pytest.raises(TimedOut, match=r"Another run is working on the same edit.*run again"),
            hold(tmp_path, "key", control, Deadline(0.2)),
        ):
            pass
        assert 0.2 <= time.monotonic() - since < 2
    with hold(tmp_path, "key", control, Deadline(0.0)):
        pass
    assert list(tmp_path.iterdir()) == []
