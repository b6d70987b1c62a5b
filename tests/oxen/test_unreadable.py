"""What was paid for and is no picture that can be read is kept as it came, told where it is, and not paid again."""

from __future__ import annotations

import io
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from kontext_bridge.oxen.api.replies import EditImage
from kontext_bridge.oxen.api.request import EditParameters
from kontext_bridge.oxen.choices import WaitMode
from kontext_bridge.oxen.errors import ResultUnavailable
from kontext_bridge.oxen.http import fetch as fetch_module
from kontext_bridge.oxen.jobs.batch import Batch
from kontext_bridge.oxen.jobs.order import How, Terms
from kontext_bridge.standin import Fault
from PIL import Image

BLOCKING, QUEUE = Terms(wait=WaitMode.BLOCKING), Terms()
NEW = {WaitMode.BLOCKING: Terms(wait=WaitMode.BLOCKING, reuse=False), WaitMode.EVENTS: Terms(reuse=False)}
WAYS = pytest.mark.parametrize("terms", [BLOCKING, QUEUE], ids=["blocking", "queue"])


@pytest.fixture(autouse=True)
def quickly(nothing_comes_late: None) -> None:
    pass


def size_of(data: bytes) -> Any:
    with Image.open(io.BytesIO(data)) as picture:
        return picture.size


def refuse(data: bytes) -> Any:
    raise ValueError("This is AVIF; PNG, JPEG, WebP and GIF are accepted.")


def avif() -> bytes:
    return b"\0\0\0\x20ftypavif\0\0\0\0" + bytes(range(256)) * 4


def one_error(outcomes: Any) -> ResultUnavailable:
    (outcome,) = outcomes
    assert isinstance(outcome.error, ResultUnavailable) and outcome.picture is None
    return outcome.error


def named_in(error: object) -> Path:
    found = re.search(r"kept as (.+?), and is not paid a second time", str(error))
    assert found is not None, str(error)
    return Path(found[1])


@WAYS
@pytest.mark.parametrize("listed", [True, False])
def test_what_cannot_be_read_is_kept_and_neither_lost_nor_paid_again(serve: Any, terms: Terms, listed: bool) -> None:
    remote = serve(history_without_sync=not listed)
    error = one_error(remote.run(remote.edits(), terms, decode=refuse))
    assert "This is AVIF" in str(error) and "set result to always new" in str(error)
    (file,) = (remote.home / "results").iterdir()
    assert named_in(error) == file and size_of(file.read_bytes())
    assert file.suffix == ".jpg", "by what it is, so that other programs open it"
    for _ in range(2):
        assert named_in(one_error(remote.run(remote.edits(), terms, decode=refuse))) == file
    assert len(remote.server.billed) == 1 and list((remote.home / "results").iterdir()) == [file]
    (read,) = remote.run(remote.edits(), terms)  # by a version that knows the format
    assert read.picture == size_of(file.read_bytes()) and len(remote.server.billed) == 1


@WAYS
def test_always_new_pays_once_for_another_in_place_of_what_cannot_be_read(serve: Any, terms: Terms) -> None:
    remote = serve(history_without_sync=True)
    one_error(remote.run(remote.edits(), terms, decode=refuse))
    (outcome,) = remote.run(remote.edits(), NEW[terms.wait])
    # what is readable by now is handed over first, as everything that is owed is
    assert outcome.how is not How.NEW and len(remote.server.billed) == 1
    one_error(remote.run(remote.edits(seed=8), terms, decode=refuse))
    one_error(remote.run(remote.edits(seed=8), NEW[terms.wait], decode=refuse))
    assert len(remote.server.billed) == 3, "one more for what was asked for anew, and no third"


def test_always_new_pays_once_although_every_answer_is_lost_and_nothing_can_be_read(
    serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = serve(answer_dropped=True)
    one_error(remote.run(remote.edits(), NEW[WaitMode.EVENTS], decode=refuse))
    assert len(remote.server.billed) == 1
    one_error(remote.run(remote.edits(), NEW[WaitMode.EVENTS], decode=refuse))
    assert len(remote.server.billed) == 2


def test_the_address_that_a_blocking_request_gives_leads_to_what_cannot_be_read(serve: Any) -> None:
    remote = serve(url_though_b64=True, history_without_sync=True)
    error = one_error(remote.run(remote.edits(), BLOCKING, decode=refuse))
    assert size_of(named_in(error).read_bytes())
    assert named_in(one_error(remote.run(remote.edits(), BLOCKING, decode=refuse))).is_file()
    (outcome,) = remote.run(remote.edits(), BLOCKING)
    assert outcome.picture is not None and len(remote.server.billed) == 1


def test_what_is_torn_in_the_blocking_answer_comes_whole_from_the_history(serve: Any) -> None:
    remote = serve(result_truncated=Fault(times=1))
    (outcome,) = remote.run(remote.edits(), BLOCKING)
    assert outcome.picture is not None and outcome.how is How.NEW
    assert len(remote.server.billed) == 1 and len(list((remote.home / "results").iterdir())) == 2


def test_a_text_that_is_no_base64_is_kept_as_it_came(serve: Any) -> None:
    remote = serve(b64_garbage=True, history_without_sync=True)
    error = one_error(remote.run(remote.edits(), BLOCKING))
    assert "not base64" in str(error) and named_in(error).read_bytes()
    assert one_error(remote.run(remote.edits(), BLOCKING)) and len(remote.server.billed) == 1


@pytest.mark.parametrize(("data", "suffix"), [(avif(), ".avif"), (b"not a picture", ".bin"), (b"", ".bin")])
def test_the_file_is_named_for_what_it_is(
    remote: Any, monkeypatch: pytest.MonkeyPatch, data: bytes, suffix: str
) -> None:
    remote.server.set(history_without_sync=True)
    monkeypatch.setattr("kontext_bridge.oxen.api.client.read_edit", lambda _: (EditImage(data=data),))
    file = named_in(one_error(remote.run(remote.edits(), BLOCKING)))
    assert file.suffix == suffix and file.read_bytes() == data
    assert (file.stat().st_mode & 0o077) == 0, "private as every result is"


@WAYS
def test_of_a_batch_the_one_that_cannot_be_read_is_named_and_the_others_are_handed_over(
    serve: Any, terms: Terms
) -> None:
    remote = serve(history_without_sync=True, result_truncated=Fault(match="red hat 1"))
    edits = [remote.edits(prompt=f"a red hat {number}")[0] for number in range(3)]
    first, torn, last = remote.run(edits, terms)
    assert first.picture and last.picture and named_in(torn.error).is_file()
    again = remote.run(edits, terms)
    assert [outcome.error is None for outcome in again] == [True, False, True] and len(remote.server.billed) == 3


def test_collect_tells_where_it_is_for_queue_and_blocking_alike(serve: Any) -> None:
    remote = serve(history_without_sync=True)
    one_error(remote.run(remote.edits(), BLOCKING, decode=refuse))
    one_error(remote.run(remote.edits(seed=9), QUEUE, decode=refuse))
    with remote.session() as session:
        records = session.ledger.recent(2)
        for outcome in Batch(session, refuse).collect(records):
            assert named_in(outcome.error).is_file()
        assert all(outcome.picture for outcome in Batch(session, size_of).collect(records))


def test_submit_gives_the_job_of_what_cannot_be_read_until_a_new_one_is_asked_for(remote: Any) -> None:
    one_error(remote.run(remote.edits(), QUEUE, decode=refuse))
    (job,) = remote.run(remote.edits(), Terms(submit_only=True), decode=refuse)
    assert job.record is not None and len(remote.server.billed) == 1
    (anew,) = remote.run(remote.edits(), Terms(submit_only=True, reuse=False), decode=refuse)
    assert anew.record.id != job.record.id


def test_what_a_run_kept_before_it_was_killed_is_found_by_the_next(remote: Any) -> None:
    parameters = EditParameters(prompt="a hat", seed=1, output_format="png")
    with remote.session() as session:
        record = session.ledger.open("k" * 64, parameters, "x", Decimal(0), blocking=True)
        session.ledger.leaving(record)
        session.ledger.done(record, avif(), "avif")
        session.ledger._database.execute("UPDATE jobs SET state = 'sending', file = NULL, bytes = NULL")
        found = session.ledger.recovered(session.ledger.by_id(record.id))
        assert session.ledger.picture(found) == avif()


def test_a_full_disk_is_told_where_what_came_cannot_be_kept(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    remote = serve(history_without_sync=True)

    def full(*_: Any) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("kontext_bridge.oxen.jobs.store.Store.write", full)
    error = one_error(remote.run(remote.edits(), QUEUE, decode=refuse))
    assert "No space left" in str(error) and "kept as" not in str(error)


def test_what_is_too_large_is_not_said_to_come_by_running_again(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    remote = serve()
    monkeypatch.setattr(
        fetch_module.FetchLimits, "__init__", lambda self: self.__dict__.update(max_bytes=99, max_seconds=9)
    )
    error = one_error(remote.run(remote.edits(), QUEUE))
    assert "Running again cannot change that" in str(error) and "run again to download" not in str(error)
    assert "from your account at Oxen.ai" in str(error) and remote.count("result") == 1
    one_error(remote.run(remote.edits(), QUEUE))
    assert len(remote.server.billed) == 1
    one_error(remote.run(remote.edits(), NEW[WaitMode.EVENTS]))
    assert len(remote.server.billed) == 2, "always new is the way out that the error names"


def test_a_real_avif_has_a_name_that_opens_it() -> None:
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, "AVIF")
    from kontext_bridge.oxen.jobs.unread import _suffix_of

    assert _suffix_of(out.getvalue()) == "avif"
