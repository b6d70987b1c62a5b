"""No error advises what cannot help: each way out that a text names is one in the place where it is shown."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from kontext_bridge.headless.calls import Blocked
from kontext_bridge.nodes.remote.runs import failure
from kontext_bridge.oxen.api.uploads import upload
from kontext_bridge.oxen.choices import SendAs
from kontext_bridge.oxen.errors import (
    ClientRefused,
    GenerationFailed,
    OutOfCredits,
    OxenError,
    ResultUnavailable,
    SomeFailed,
    Unauthenticated,
)
from kontext_bridge.oxen.http.fetch import FetchLimits
from kontext_bridge.standin import Fault


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kontext_bridge.oxen.jobs.finishing._LATE_SECONDS", 0.0)


def kept_file(said: str) -> Path:
    found = re.search(r"kept as (.+?), and is not paid a second time", said)
    assert found is not None, said
    return Path(found[1])


@pytest.mark.parametrize("wait", ["one blocking request", "events and polling"])
def test_a_result_that_cannot_be_read_is_kept_and_named_in_a_batch(serve: Any, images: Any, wait: str) -> None:
    bench = serve(history_without_sync=True, result_bomb=Fault(after=1))
    with pytest.raises(SomeFailed) as raised:
        bench.edit(images(2), wait=wait)
    said = str(raised.value)
    assert "60000x60000" in said and kept_file(said).is_file()
    assert "only what failed is paid for" not in said and "nothing of all this is paid again" in said
    assert len(bench.server.billed) == 2


def test_of_a_list_the_item_that_cannot_be_read_is_kept_and_named(serve: Any) -> None:
    from test_lists import pictures, run_lists

    bench = serve(result_truncated=Fault(after=1))
    with pytest.raises(SomeFailed) as raised:
        run_lists(bench, "KontextEdit", {"image": pictures(2)}, seed=5)
    assert kept_file(str(raised.value)).is_file() and "only what failed is paid for" not in str(raised.value)


def test_collect_and_history_do_not_name_a_widget_that_they_lack(serve: Any, images: Any) -> None:
    bench = serve(result_bomb=True)
    job, _ = bench.submit(images())
    with pytest.raises(OxenError) as raised:
        bench.run("KontextCollect", job=[job])
    assert "always new" not in str(raised.value) and "use Kontext Edit or Kontext Submit" in str(raised.value)
    assert kept_file(str(raised.value)).is_file()
    picture = bench.run("KontextHistory")[0]
    assert isinstance(picture, Blocked) and picture.message is not None
    assert "always new" not in picture.message and kept_file(picture.message).is_file()


def test_a_result_that_is_too_large_is_not_blamed_on_the_picture_that_was_sent(
    serve: Any, images: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = serve()
    monkeypatch.setattr(FetchLimits, "__init__", lambda self: self.__dict__.update(max_bytes=99, max_seconds=9))
    with pytest.raises(ResultUnavailable, match="Running again cannot change that") as raised:
        bench.edit(images())
    assert "send_as" not in str(raised.value)


@pytest.mark.parametrize(("error", "again"), [(ResultUnavailable, False), (GenerationFailed, True)])
def test_only_what_is_paid_for_again_is_said_to_be(error: type[OxenError], again: bool) -> None:
    told = str(failure({1: error("gone")}, 3, SendAs.AUTO))
    assert ("only what failed is paid for" in told) is again


@pytest.mark.parametrize(
    "error", [Unauthenticated("no", status=401), ClientRefused("no", status=426), OutOfCredits("no", status=402)]
)
def test_another_way_to_send_is_not_advised_where_it_would_fail_as_well(
    error: OxenError, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> str:
        raise error

    monkeypatch.setattr("kontext_bridge.oxen.api.uploads._to_playground", fails)
    with pytest.raises(type(error), match="No edit was sent") as raised:
        upload(None, b"", "image/png", None)  # type: ignore[arg-type]
    assert "send_as" not in str(raised.value)
