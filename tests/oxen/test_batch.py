from __future__ import annotations

import io
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from kontext_bridge.oxen.api.client import Client
from kontext_bridge.oxen.api.uploads import upload
from kontext_bridge.oxen.choices import WaitMode
from kontext_bridge.oxen.errors import (
    GenerationFailed,
    GenerationNotFound,
    Misconfigured,
    OutcomeUnknown,
    ResultUnavailable,
    SpendLimitReached,
    Unauthenticated,
)
from kontext_bridge.oxen.http.transport import Transport
from kontext_bridge.oxen.jobs.batch import Batch
from kontext_bridge.oxen.jobs.ledger import Ledger
from kontext_bridge.oxen.jobs.order import Edit, How, Terms
from kontext_bridge.oxen.jobs.record import State, request_key
from kontext_bridge.standin import Fault, Faults
from outcomes import errors, hows
from PIL import Image

BLOCKING = Terms(wait=WaitMode.BLOCKING)
SUBMIT = Terms(submit_only=True)
NEW = Terms(reuse=False)
BLOCKING_NEW = Terms(wait=WaitMode.BLOCKING, reuse=False)


def red_of(data: bytes) -> tuple[int, int, int]:
    with Image.open(io.BytesIO(data)) as picture:
        return picture.convert("RGB").resize((1, 1)).getpixel((0, 0))


def test_results_come_in_the_order_of_the_edits_whichever_is_ready_first(serve: Any) -> None:
    remote = serve(stuck=Fault(match="number 0"))
    edits = [remote.edits(prompt=f"number {n}", seed=n * 1000)[0] for n in range(3)]
    running = remote.in_thread(lambda: remote.run(edits, decode=red_of))
    remote.server.wait_for(lambda s: len(s.delivered) == 2)
    remote.server.finish(next(job.id for job in remote.server.jobs.values() if job.prompt == "number 0"))
    outcomes = running.result()
    assert [outcome.record.prompt for outcome in outcomes] == ["number 0", "number 1", "number 2"]
    alone = [remote.run([edit], decode=red_of)[0].picture for edit in edits]
    assert [outcome.picture for outcome in outcomes] == alone and len(set(alone)) == 3


def test_each_edit_is_sent_with_its_own_seed(remote: Any) -> None:
    remote.run(remote.edits(4, seed=2**31 - 2))
    assert sorted(job.params["seed"] for job in remote.server.jobs.values()) == [0, 1, 2**31 - 2, 2**31 - 1]


@pytest.mark.parametrize("limit", [1, 3])
def test_no_more_than_the_settings_allow_are_under_way_at_once(serve: Any, limit: int) -> None:
    most = 0

    def behaviour(request: Any) -> None:
        nonlocal most
        under_way = sum(not job.status.terminal for job in remote.server.jobs.values())
        most = max(most, under_way + (request.route == "enqueue"))

    remote = serve(behaviour=behaviour)
    remote.server.hold()
    running = remote.in_thread(lambda: remote.run(remote.edits(6), max_in_flight=limit))
    remote.server.wait_for(lambda s: len(s.jobs) == limit)
    remote.server.release()
    assert hows(running.result()) == [How.NEW] * 6
    assert most == limit
    assert len(remote.server.billed) == 6


def test_where_some_fail_the_others_are_kept_and_the_next_run_pays_for_the_failed_alone(serve: Any) -> None:
    remote = serve(run_fails=Fault(match="number 1"))
    edits = [remote.edits(prompt=f"number {n}")[0] for n in range(3)]
    outcomes = remote.run(edits)
    assert errors(outcomes) == [None, GenerationFailed, None]
    remote.server.set(run_fails=None)
    assert hows(remote.run(edits)) == [How.REUSED, How.NEW, How.REUSED]
    assert [remote.server.jobs[bill.what].prompt for bill in remote.server.billed].count("number 1") == 2
    assert len(remote.server.billed) == 4


def test_what_no_edit_can_escape_stops_the_batch_before_the_rest_is_sent(serve: Any) -> None:
    remote = serve(unauthorized=True)
    outcomes = remote.run(remote.edits(8), max_in_flight=1)
    assert errors(outcomes) == [Unauthenticated] * 8
    assert remote.count("enqueue") == 1


def test_without_a_key_nothing_is_sent_at_all(remote: Any, monkeypatch: Any) -> None:
    monkeypatch.delenv("OXEN_API_KEY")
    with pytest.raises(Misconfigured, match="OXEN_API_KEY"):
        remote.run(remote.edits())
    assert remote.server.requests == []


def test_the_same_request_again_sends_nothing_at_all(remote: Any) -> None:
    first = remote.run(remote.edits(2))
    before = len(remote.server.requests)
    again = remote.run(remote.edits(2))
    assert (hows(first), hows(again)) == ([How.NEW] * 2, [How.REUSED] * 2)
    assert [o.picture for o in again] == [o.picture for o in first]
    assert len(remote.server.requests) == before


def test_a_picture_that_is_kept_is_given_without_a_key_and_without_the_service(remote: Any, monkeypatch: Any) -> None:
    remote.run(remote.edits())
    monkeypatch.delenv("OXEN_API_KEY")
    remote.server.refuse_connections()
    assert hows(remote.run(remote.edits())) == [How.REUSED]


def test_always_new_pays_every_time_but_not_for_what_is_still_owed(serve: Any) -> None:
    remote = serve()
    assert hows(remote.run(remote.edits(), NEW)) + hows(remote.run(remote.edits(), NEW)) == [How.NEW, How.NEW]
    remote.run(remote.edits(), Terms(reuse=False, submit_only=True))
    assert hows(remote.run(remote.edits(), NEW)) == [How.RESUMED]
    assert len(remote.server.billed) == 3


def test_two_threads_with_the_same_request_pay_once(serve: Any) -> None:
    remote = serve()
    remote.server.hold()
    runs = [remote.in_thread(lambda: remote.run(remote.edits())) for _ in range(2)]
    remote.server.wait_for(lambda s: s.jobs)
    remote.server.release()
    outcomes = [run.result()[0] for run in runs]
    assert sorted(str(outcome.how.value) for outcome in outcomes) == ["new", "reused"]
    assert outcomes[0].picture == outcomes[1].picture is not None
    assert len(remote.server.billed) == 1


def test_two_processes_with_the_same_request_pay_once(remote: Any) -> None:
    remote.server.hold()
    processes = [remote.elsewhere("edit", "a hat", "5") for _ in range(2)]
    remote.server.wait_for(lambda s: s.jobs)
    remote.server.release()
    told = [remote.answer_of(process)[0] for process in processes]
    assert sorted(one["how"] for one in told) == ["new", "reused"]
    assert told[0]["id"] == told[1]["id"] and told[0]["size"] == told[1]["size"]
    assert len(remote.server.billed) == 1


def test_what_one_process_submits_another_collects_by_id_and_a_third_has_for_nothing(remote: Any) -> None:
    submitted = remote.answer_of(remote.elsewhere("submit", "a hat", "5"))[0]
    assert submitted["size"] is None and submitted["error"] is None
    collected = remote.answer_of(remote.elsewhere("collect", submitted["id"]))[0]
    assert collected["how"] == "resumed" and collected["size"]
    edit = remote.edits(prompt="a hat", seed=5)
    assert hows(remote.run(edit)) == [How.REUSED]
    assert len(remote.server.billed) == 1


def test_a_submitted_job_is_left_alone_and_collected_in_order(remote: Any) -> None:
    remote.server.hold()
    submitted = remote.run(remote.edits(3), SUBMIT)
    assert [o.picture for o in submitted] == [None] * 3
    assert remote.count("row") == remote.count("events") == 0
    remote.server.release()
    with remote.session() as session:
        outcomes = Batch(session, lambda data: data).collect([o.record for o in reversed(submitted)])
    assert [o.record.id for o in outcomes] == [o.record.id for o in reversed(submitted)]
    assert all(o.picture for o in outcomes)


def test_a_job_of_another_machine_is_collected_by_its_id(remote: Any) -> None:
    edit = remote.edits()[0]
    client = Client(remote.account)
    job = client.enqueue(edit.parameters, edit.input_image())
    client.close()
    with remote.session() as session:
        outcome = Batch(session, len).collect([session.ledger.adopt(job)])[0]
        assert outcome.picture and outcome.record.generation_id == job
        assert session.ledger.adopt(job) == session.ledger.by_id(outcome.record.id)


def test_an_id_that_does_not_exist_is_named(remote: Any) -> None:
    with remote.session() as session:
        outcome = Batch(session, len).collect([session.ledger.adopt("no-such-id")])[0]
    assert isinstance(outcome.error, GenerationNotFound) and "no-such-id" in str(outcome.error)
    with remote.session() as session:
        assert session.ledger.recent(10) == (), "a mistyped id stays in the history for good"


def test_a_request_that_was_refused_is_not_said_to_be_paid_for_when_it_is_collected(serve: Any) -> None:
    remote = serve(error_text="the seed is odd")
    remote.run(remote.edits())
    with remote.session() as session:
        outcome = Batch(session, len).collect(session.ledger.recent(1))[0]
    assert isinstance(outcome.error, GenerationFailed)
    assert "the seed is odd" in str(outcome.error) and "paid for" not in str(outcome.error)


@pytest.mark.parametrize("faults", [{}, {"url_though_b64": True}, {"image_url_reply": True}], ids=str)
def test_one_blocking_request_gives_its_picture_whatever_the_reply_holds(serve: Any, faults: dict[str, Any]) -> None:
    remote = serve(**faults)
    assert hows(remote.run(remote.edits(2), BLOCKING)) == [How.NEW] * 2
    assert hows(remote.run(remote.edits(2), BLOCKING)) == [How.REUSED] * 2
    assert (remote.count("edit"), remote.count("enqueue"), remote.count("row")) == (2, 0, 0)
    assert remote.server.requests[0].json["response_format"] == "b64_json"


def test_a_queued_request_has_no_response_format(remote: Any) -> None:
    remote.run(remote.edits())
    sent = next(request.json for request in remote.server.requests if request.route == "enqueue")
    assert "response_format" not in sent and "num_generations" not in sent
    assert sent["aspect_ratio"] == "match_input_image"


def test_a_blocking_answer_that_is_lost_is_found_in_the_history_and_not_paid_again(serve: Any) -> None:
    remote = serve(answer_dropped=True)
    outcome = remote.run(remote.edits(), BLOCKING)[0]
    assert outcome.how is How.FOUND and outcome.picture is not None
    assert len(remote.server.billed) == 1


def test_a_blocking_answer_that_is_lost_and_listed_nowhere_is_paid_again_only_where_a_new_one_is_asked_for(
    serve: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr("kontext_bridge.oxen.jobs.doubt.SETTLE_SECONDS", 0.0)
    remote = serve(answer_dropped=Fault(times=1), history_without_sync=True)
    for _ in range(3):
        (outcome,) = remote.run(remote.edits(), BLOCKING, usd_per_day=Decimal(1))
        assert isinstance(outcome.error, OutcomeUnknown)
        assert "may be on your bill" in str(outcome.error) and "set result to always new" in str(outcome.error)
        assert len(remote.server.billed) == 1
    assert hows(remote.run(remote.edits(), BLOCKING_NEW, usd_per_day=Decimal(1))) == [How.NEW]
    assert hows(remote.run(remote.edits(), BLOCKING)) == [How.REUSED]
    assert len(remote.server.billed) == 2
    with remote.session() as session:
        assert session.ledger.totals() == (2, Decimal("0.08")), "what may be on the bill counts as spent"


def test_a_blocking_request_that_was_stopped_and_is_listed_later_is_found_and_not_paid_again(
    serve: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr("kontext_bridge.oxen.jobs.doubt.SETTLE_SECONDS", 0.0)
    remote = serve(answer_dropped=Fault(times=1), history_without_sync=True)
    assert errors(remote.run(remote.edits(), BLOCKING)) == [OutcomeUnknown]
    remote.server.set(history_without_sync=False)
    assert hows(remote.run(remote.edits(), BLOCKING_NEW)) == [How.FOUND]
    assert len(remote.server.billed) == 1


def test_always_new_after_a_batch_that_failed_in_part_pays_for_the_failed_alone(serve: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("kontext_bridge.oxen.jobs.doubt.SETTLE_SECONDS", 0.0)
    remote = serve(answer_dropped=Fault(match="number 1"), history_without_sync=True)
    edits = [remote.edits(prompt=f"number {n}")[0] for n in range(3)]
    outcomes = remote.run(edits, BLOCKING, handed_over=False)
    assert errors(outcomes) == [None, OutcomeUnknown, None]
    remote.server.set(answer_dropped=None)
    assert hows(remote.run(edits, BLOCKING_NEW)) == [How.REUSED, How.NEW, How.REUSED]
    assert hows(remote.run(edits, BLOCKING_NEW)) == [How.NEW] * 3, "handed over now"
    assert len(remote.server.billed) == 3 + 1 + 3


def test_a_lost_answer_is_found_among_rows_of_a_status_that_no_document_lists(serve: Any) -> None:
    remote = serve(poll_odd_status=Fault(match="other"))
    remote.run(remote.edits(prompt="other"), Terms(submit_only=True))
    remote.server.set(answer_dropped=Fault(times=1))
    assert hows(remote.run(remote.edits())) == [How.FOUND]
    assert len(remote.server.billed) == 2


def test_a_blocking_answer_whose_address_has_expired_is_fetched_by_way_of_the_history(serve: Any) -> None:
    remote = serve(url_though_b64=True, result_expired=Fault(times=1))
    outcome = remote.run(remote.edits(), BLOCKING)[0]
    assert outcome.error is None and outcome.picture is not None
    assert outcome.record.generation_id is not None and len(remote.server.billed) == 1


def test_a_picture_that_was_pruned_is_downloaded_again_and_paid_for_again_only_where_that_is_asked_for(
    serve: Any,
) -> None:
    remote = serve()
    first = remote.run(remote.edits())[0]
    for file in (remote.home / "results").iterdir():
        file.unlink()
    assert remote.run(remote.edits())[0].picture == first.picture
    assert len(remote.server.billed) == 1
    with remote.session() as session:
        assert session.ledger.prune(max_bytes=0, keep_seconds=1e9) == 1
    remote.server.set(result_missing=Fault(match=first.record.generation_id))
    assert errors(remote.run(remote.edits())) == [ResultUnavailable]
    assert len(remote.server.billed) == 1
    assert hows(remote.run(remote.edits(), NEW)) == [How.NEW]
    assert len(remote.server.billed) == 2


@pytest.mark.usefixtures("nothing_comes_late")
def test_a_picture_that_never_arrived_is_not_paid_for_again_unless_a_new_one_is_asked_for(serve: Any) -> None:
    remote = serve(result_missing=Fault(times=10))
    assert errors(remote.run(remote.edits())) == [ResultUnavailable]
    outcome = remote.run(remote.edits())[0]
    assert isinstance(outcome.error, ResultUnavailable) and "always new" in str(outcome.error)
    assert len(remote.server.billed) == 1
    remote.server.set(result_missing=Fault(match=outcome.error.generation_id))
    assert hows(remote.run(remote.edits(), NEW)) == [How.NEW]
    assert len(remote.server.billed) == 2


def test_a_service_that_cannot_give_the_picture_just_now_is_no_reason_to_pay_again(
    serve: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr("kontext_bridge.oxen.jobs.results._TRIES", 1)
    remote = serve(result_error=True)
    assert errors(remote.run(remote.edits(), NEW)) == [ResultUnavailable]
    assert errors(remote.run(remote.edits(), NEW)) == [ResultUnavailable]
    assert len(remote.server.billed) == 1
    remote.server.set(result_error=None)
    assert hows(remote.run(remote.edits(), NEW)) == [How.RESUMED]


@pytest.mark.parametrize("fault", ["result_truncated", "result_cut", "result_empty", "result_html", "result_expired"])
def test_a_download_that_went_wrong_is_repeated_until_the_picture_is_whole(serve: Any, fault: str) -> None:
    remote = serve(**{fault: Fault(times=1)})
    assert hows(remote.run(remote.edits())) == [How.NEW]
    assert remote.server.shown[fault] == 1


@pytest.mark.parametrize("public", [False, True], ids=["playground", "public repository"])
def test_an_uploaded_picture_is_one_that_the_service_can_fetch(remote: Any, public: bool) -> None:
    edit = remote.edits()[0]
    client = Client(remote.account)
    repository = f"{client.username()}/Public" if public else None
    if public:
        body = {"name": "Public", "is_public": True, "visibility": "public"}
        client.transport.send("POST", "/api/repos/", json=body)
    out = io.BytesIO()
    Image.new("RGB", (48, 32), "red").save(out, "PNG")
    urls = [upload(client, out.getvalue(), "image/png", repository) for _ in range(2)]
    client.close()
    assert len(set(urls)) == 2, "nobody can guess the name of a file from its content"
    uploaded = Edit(edit.parameters, "pixels", lambda: urls[0])
    assert hows(remote.run([uploaded])) == [How.NEW]


def test_an_upload_that_finds_its_playground_made_meanwhile_goes_on(remote: Any, monkeypatch: Any) -> None:
    client, send = Client(remote.account), Transport.send

    def overtaken(self: Transport, method: str, path: str, **options: Any) -> Any:
        if (method, path) == ("POST", "/api/repos/"):
            send(self, method, path, **options)
        return send(self, method, path, **options)

    monkeypatch.setattr(Transport, "send", overtaken)
    assert upload(client, b"png", "image/png", None)
    client.close()


@pytest.mark.parametrize("repository", [None, "ox/Public"])
def test_an_upload_that_is_refused_says_what_to_change_and_sends_no_edit(serve: Any, repository: str | None) -> None:
    remote = serve(upload_refused=True)
    edit = remote.edits()[0]

    def outcomes() -> Any:
        with remote.session() as session:
            send = lambda: upload(session.client, b"png", "image/png", repository)  # noqa: E731
            return Batch(session, len).edit([Edit(edit.parameters, "pixels", send)])

    error = outcomes()[0].error
    assert "Set send_as to data URI" in str(error) and "No edit was sent" in str(error)
    assert remote.count("enqueue") == 0


def test_a_run_over_its_limit_is_refused_with_the_sum_and_nothing_is_sent(remote: Any) -> None:
    with pytest.raises(SpendLimitReached, match=r"3 new pictures at \$0\.04 .*\$0\.12.*limit of \$0\.10 \(usd_per_run"):
        remote.run(remote.edits(3), usd_per_run=Decimal("0.10"))
    assert remote.server.billed == [] and remote.count("enqueue") == 0


def test_the_limit_of_a_run_holds_for_all_nodes_of_the_graph_together(remote: Any) -> None:
    limit = Decimal("0.10")
    assert hows(remote.run(remote.edits(2, prompt="first"), run_id="graph 1", usd_per_run=limit)) == [How.NEW] * 2
    with pytest.raises(SpendLimitReached, match=r"\$0\.12"):
        remote.run(remote.edits(1, prompt="second"), run_id="graph 1", usd_per_run=limit)
    assert hows(remote.run(remote.edits(1, prompt="second"), run_id="graph 2", usd_per_run=limit)) == [How.NEW]


def test_the_price_is_asked_for_once_by_all_the_edits_of_a_list(remote: Any) -> None:
    for number in range(3):
        remote.run(remote.edits(prompt=f"item {number}"), run_id="graph", usd_per_run=Decimal(1))
    assert remote.count("model") == 1


def test_the_limit_of_a_day_counts_what_was_spent_before(remote: Any) -> None:
    limit = Decimal("0.10")
    remote.run(remote.edits(2), usd_per_day=limit)
    with pytest.raises(SpendLimitReached, match=r"\$0\.12.*limit of \$0\.10 \(usd_per_day"):
        remote.run(remote.edits(1, prompt="another"), usd_per_day=limit)
    assert len(remote.server.billed) == 2


def test_what_is_reused_counts_against_no_limit(remote: Any) -> None:
    remote.run(remote.edits(2))
    assert hows(remote.run(remote.edits(2), usd_per_run=Decimal(0), usd_per_day=Decimal(0))) == [How.REUSED] * 2


def test_what_the_service_refused_counts_against_no_limit(serve: Any) -> None:
    remote = serve(error_text=Fault(times=2))
    remote.run(remote.edits(2), usd_per_day=Decimal("0.08"))
    assert hows(remote.run(remote.edits(2), usd_per_day=Decimal("0.08"))) == [How.NEW] * 2


def test_a_limit_without_a_published_price_sends_nothing(serve: Any) -> None:
    remote = serve(price_missing=True)
    with pytest.raises(SpendLimitReached, match=r"no price .* Nothing was sent"):
        remote.run(remote.edits(), usd_per_run=Decimal(1))
    assert remote.server.billed == []


def test_a_request_that_was_lost_and_is_sent_again_is_held_against_the_limit(remote: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("kontext_bridge.oxen.jobs.doubt.SETTLE_SECONDS", 0.0)
    edit = remote.edits()[0]
    with remote.session() as session:
        key = request_key(remote.account.base_url, edit.parameters, edit.pixels)
        assert session.ledger.open(key, edit.parameters, edit.input_image(), None) is not None
    outcome = remote.run([edit], usd_per_day=Decimal("0.03"))[0]
    assert isinstance(outcome.error, SpendLimitReached)
    assert remote.server.billed == []


def test_pruning_never_touches_a_picture_that_was_not_collected(remote: Any) -> None:
    outcomes = remote.run(remote.edits(3))
    with remote.session() as session:
        owed = session.ledger.done(session.ledger.adopt("owed"), b"x" * 1000, "png")
        assert session.ledger.prune(max_bytes=0, keep_seconds=1e9) == 3
        assert session.ledger.picture(owed) == b"x" * 1000
        assert [session.ledger.picture(session.ledger.by_id(o.record.id)) for o in outcomes] == [None] * 3
        assert [record.state for record in session.ledger.recent(9)] == [State.DONE] * 4, "records stay"


def test_pruning_takes_the_oldest_first_and_stops_as_soon_as_the_rest_fits(remote: Any) -> None:
    with remote.session() as session:
        ledger = session.ledger
        records = []
        for n in range(4):
            records.append(ledger.collected(ledger.done(ledger.adopt(f"job-{n}"), b"x" * 100, "png")))
            time.sleep(0.002)
        assert ledger.prune(max_bytes=250, keep_seconds=1e9) == 2
        assert [ledger.picture(ledger.by_id(r.id)) is not None for r in records] == [False, False, True, True]
        assert ledger.prune(max_bytes=250, keep_seconds=1e9) == 0


def test_a_new_ledger_is_opened_by_many_at_once(tmp_path: Path) -> None:
    for number in range(20):
        with ThreadPoolExecutor(6) as threads:
            ledgers = list(threads.map(lambda _: Ledger(tmp_path / str(number)), range(6)))  # noqa: B023
        for ledger in ledgers:
            ledger.close()


def test_a_ledger_of_an_earlier_version_is_used_on(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "ledger.sqlite3") as database:
        columns = "id, key, state, generation_id, result_url, prompt, seed, parameters, input_digest, created_at"
        database.execute(
            f"CREATE TABLE jobs ({columns.replace('id,', 'id INTEGER PRIMARY KEY,', 1)}, finished_at, collected_at, "
            "price, cost, error, file, bytes)"
        )
        database.execute(
            f"INSERT INTO jobs ({columns}) VALUES (1, 'k', 'sent', 'job', NULL, 'a hat', 7, '{{}}', 'd', 5)"
        )
    database.close()
    for _ in range(2):
        ledger = Ledger(tmp_path)
        (record,) = ledger.recent(9)
        assert (record.prompt, record.state, record.blocking) == ("a hat", State.SENT, False)
        ledger.close()


def test_every_run_prunes_to_the_settings(remote: Any) -> None:
    remote.run(remote.edits(2))
    remote.run(remote.edits(1, prompt="another"), store_megabytes=0)
    assert list((remote.home / "results").iterdir()) == []


def test_a_collected_picture_stays_collected_where_it_is_submitted_again_and_an_owed_one_stays_owed(
    remote: Any,
) -> None:
    with remote.session() as session:
        outcome = Batch(session, len, SUBMIT).edit(remote.edits())[0]
        remote.server.wait_for(lambda s: all(job.status.terminal for job in s.jobs.values()))
        session.ledger.done(outcome.record, b"\xff\xd8", "jpg")
        again = Batch(session, len, SUBMIT).edit(remote.edits())[0]
        assert again.record.collected_at is None
    assert len(remote.server.billed) == 1


def test_the_cost_that_the_service_tells_is_noted(remote: Any) -> None:
    assert remote.run(remote.edits())[0].record.cost == Decimal("0.04")


def test_an_edit_that_is_not_sent_encodes_nothing(remote: Any) -> None:
    edit = remote.edits()[0]
    remote.run([edit])

    def refuse() -> str:
        raise AssertionError("encoded in vain")

    assert hows(remote.run([Edit(edit.parameters, edit.pixels, refuse)])) == [How.REUSED]


def test_a_fault_of_one_request_alone_is_told_for_that_one(serve: Any) -> None:
    def behaviour(request: Any) -> Faults | None:
        odd = request.route == "enqueue" and request.json["seed"] == 8
        return Faults(out_of_credits=True) if odd else None

    remote = serve(behaviour=behaviour)
    outcomes = remote.run(remote.edits(2))
    assert hows(outcomes)[0] is How.NEW and "no credits left" in str(outcomes[1].error)
