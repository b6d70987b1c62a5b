"""At every end the last text on a node is the truth: what came, what was paid, what goes on at the service."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from kontext_bridge import host
from kontext_bridge.headless.run import RunInterrupted
from kontext_bridge.imaging.errors import ImageError
from kontext_bridge.oxen.errors import OxenError
from kontext_bridge.standin import Fault
from patience import PATIENCE
from test_lists import pictures, run_lists

SECONDS = r" · \d+ s"
FAILS = contextlib.suppress(OxenError, ImageError, RunInterrupted)


def last(bench: Any) -> str:
    return str(bench.heard.texts[-1])


def says(bench: Any, pattern: str) -> None:
    """Wait for what is said after the node has ended."""
    end = time.monotonic() + PATIENCE
    while not re.fullmatch(pattern, last(bench)) and time.monotonic() < end:
        time.sleep(0.02)
    assert re.fullmatch(pattern, last(bench)), bench.heard.texts


@contextlib.contextmanager
def cancelling(bench: Any, jobs: int) -> Iterator[None]:
    """Press Cancel when the service has so many jobs."""

    def press() -> None:
        bench.server.wait_for(lambda s: len(s.jobs) >= jobs)
        host.request_interrupt()

    thread = threading.Thread(target=press)
    thread.start()
    with FAILS:
        yield
    thread.join()


def test_a_picture_that_was_made_says_how_long_it_took_and_what_it_cost(bench: Any, images: Any) -> None:
    bench.edit(images())
    assert re.fullmatch(rf"done{SECONDS} · \$0\.04", last(bench))


def test_a_batch_says_the_sum(bench: Any, images: Any) -> None:
    bench.edit(images(2), variations=2)
    assert re.fullmatch(rf"4 of 4 done{SECONDS} · \$0\.16", last(bench))


def test_a_cost_that_is_not_told_is_not_said(serve: Any, images: Any) -> None:
    bench = serve(cost_odd="unknown")
    bench.edit(images())
    assert re.fullmatch(rf"done{SECONDS}", last(bench))


def test_what_was_paid_before_is_not_said_to_be_done(bench: Any, images: Any) -> None:
    bench.edit(images(1))
    bench.edit(images(1))
    assert last(bench) == "brought back, not paid again"
    bench.edit(images(4)[:3])
    bench.edit(images(4))
    assert re.fullmatch(rf"1 new, 3 brought back{SECONDS} · \$0\.04", last(bench))


def test_without_a_key_the_node_says_so(bench: Any, images: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OXEN_API_KEY")
    for count in (1, 3):
        with pytest.raises(OxenError) as raised:
            bench.edit(images(count))
        assert last(bench).startswith("No Oxen.ai ") and last(bench) in str(raised.value)
        assert "failed" not in last(bench)


def test_an_edit_that_failed_says_the_first_sentence_of_its_error(serve: Any, images: Any) -> None:
    bench = serve(run_fails="the worker died")
    with pytest.raises(OxenError) as raised:
        bench.edit(images())
    assert str(raised.value).startswith(last(bench)) and "the worker died" in last(bench)


def test_a_batch_of_which_some_failed_says_which_part_came(serve: Any, images: Any) -> None:
    bench = serve(run_fails=Fault("the worker died", times=1))
    with FAILS:
        bench.edit(images(3))
    assert re.fullmatch(rf"1 of 3 failed: .*the worker died.* · 2 new{SECONDS} · \$0\.08", last(bench))


def test_a_widget_that_cannot_be_right_is_named_on_the_node(bench: Any, images: Any) -> None:
    with pytest.raises(OxenError) as raised:
        bench.edit(images(), prompt=["  "])
    assert str(raised.value).startswith(last(bench))


def test_a_picture_that_cannot_be_sent_is_named_on_the_node(bench: Any) -> None:
    with pytest.raises((OxenError, ImageError)) as raised:
        bench.edit(torch.full((1, 24, 32, 3), float("nan")))
    assert str(raised.value).startswith(last(bench))


@pytest.mark.parametrize(("count", "all_of_them"), [(1, ""), (4, "all 4 ")])
def test_a_job_that_takes_longer_is_said_to_go_on(serve: Any, images: Any, count: int, all_of_them: str) -> None:
    bench = serve()
    bench.server.hold()
    with FAILS:
        bench.edit(images(count), timeout=5, variations=1)
    assert last(bench) == f"{all_of_them}still running there; run again to go on waiting"
    bench.server.release()
    bench.edit(images(count))
    assert "brought back, not paid again" in last(bench) and len(bench.paid) == count


@pytest.mark.parametrize(("count", "told"), [(1, "at Oxen.ai too"), (4, "all 4 at Oxen.ai too")])
def test_a_cancelled_run_says_that_its_jobs_are_cancelled_once_that_is_known(
    serve: Any, images: Any, count: int, told: str
) -> None:
    bench = serve()
    bench.server.hold()
    with cancelling(bench, count):
        bench.edit(images(count))
    says(bench, f"cancelled, {told}")


def test_a_run_that_is_cancelled_says_nothing_of_a_service_that_does_not_answer(serve: Any, images: Any) -> None:
    bench = serve(cancel_never_answers=True)
    bench.server.hold()
    with cancelling(bench, 1):
        bench.edit(images())
    says(bench, r"cancelled here, Oxen\.ai is being told")


def test_a_cancel_that_the_service_refuses_is_not_said_to_have_worked(serve: Any, images: Any) -> None:
    bench = serve(cancel_error=True)
    bench.server.hold()
    with cancelling(bench, 1):
        bench.edit(images())
    says(bench, r"cancelled, not known to have stopped at Oxen\.ai")


def test_a_picture_that_came_before_cancel_is_said_to_be_kept(serve: Any, images: Any) -> None:
    bench = serve(cancel_loses=True)
    bench.server.hold()
    with cancelling(bench, 1):
        bench.edit(images())
    says(bench, "cancelled, finished before and kept: run again to have it")
    bench.edit(images())
    assert last(bench) == "brought back, not paid again"


def test_a_cancelled_list_says_what_became_of_all_its_items(serve: Any) -> None:
    bench = serve()
    bench.server.hold()
    with cancelling(bench, 3):
        run_lists(bench, "KontextEdit", {"image": pictures(3)}, seed=5)
    says(bench, r"cancelled, all 3 at Oxen\.ai too")


def test_a_list_says_at_its_end_what_became_of_all_its_items(serve: Any) -> None:
    bench = serve(run_fails=Fault("the worker died", times=1))
    with FAILS:
        run_lists(bench, "KontextEdit", {"image": pictures(3)}, seed=5)
    assert re.fullmatch(rf"1 of 3 failed: .*the worker died.* · 2 new{SECONDS} · \$0\.08", last(bench))
    run_lists(bench, "KontextEdit", {"image": pictures(3)}, seed=5)
    assert re.fullmatch(rf"1 new, 2 brought back{SECONDS} · \$0\.04", last(bench))


def test_submitting_and_collecting_say_what_they_did(bench: Any, images: Any) -> None:
    job, _ = bench.submit(images(3)[:2])
    assert re.fullmatch(rf"both submitted{SECONDS}", last(bench))
    bench.submit(images(3))
    assert re.fullmatch(rf"1 submitted, 2 submitted before{SECONDS}", last(bench))
    bench.run("KontextCollect", job=[job])
    assert re.fullmatch(rf"both collected{SECONDS}", last(bench))
    bench.run("KontextCollect", job=[job])
    assert last(bench) == "both brought back, not paid again"


def test_an_id_that_is_none_is_named_on_the_node(bench: Any) -> None:
    with pytest.raises(OxenError) as raised:
        bench.run("KontextCollect", generation_ids="nonsense")
    assert str(raised.value).startswith(last(bench))


@pytest.mark.parametrize("node", ["KontextHistory", "KontextQueueStatus", "KontextModelInfo"])
def test_a_node_that_only_lists_says_nothing_beside_its_list(bench: Any, images: Any, node: str) -> None:
    bench.edit(images())
    bench.run(node)
    assert bench.heard.texts == []


def test_what_an_earlier_run_still_has_to_say_does_not_stand_over_a_newer_one(
    serve: Any, images: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr("kontext_bridge.host.comfyui.tell", lambda _event, _node, text, *_: said.append(text))
    runs = iter(["first", "second"])
    monkeypatch.setattr("kontext_bridge.host.comfyui.run_id", lambda: next(runs))
    old, new = host.Voice("1"), host.Voice("1")
    new.say("sending")
    old.say("cancelled, at Oxen.ai too")
    assert said == ["sending"]


def test_steps_are_said_no_more_than_a_few_times_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    tell: Callable[..., None] = lambda _event, _node, text, *_: said.append(text)  # noqa: E731
    monkeypatch.setattr("kontext_bridge.host.comfyui.tell", tell)
    voice = host.Voice("1")
    for step in range(1000):
        voice.murmur(f"step {step}")
    voice.say("decoding")
    assert said[0] == "step 0" and said[-1] == "decoding" and len(said) < 10


def test_a_cancelled_edit_is_not_listed_as_paid_nor_as_free_where_nobody_says(
    serve: Any, images: Any, home: Any
) -> None:
    home.mkdir(parents=True)
    (home / "settings.toml").write_text("usd_per_day = 5\n", encoding="utf-8")  # so that the price is noted
    bench = serve()
    bench.server.hold()
    with cancelling(bench, 1):
        bench.edit(images())
    says(bench, r"cancelled, at Oxen\.ai too")
    total, line = bench.result("KontextHistory").nodes["node"].texts["table"].splitlines()
    assert total.startswith("1 edit in all") and "cancelled" in line
    assert "cost unknown" in line and "$" not in line and "not billed" not in line


def test_a_line_of_a_list_fits_the_node(bench: Any, images: Any) -> None:
    bench.server.hold()
    for seed in range(2):
        bench.submit(images(), prompt="a hat\n" + "very " * 50, seed=seed)
    # A picture that is under way would be waited for, for five minutes; there is no third.
    for node, inputs in (("KontextHistory", {"pick": 3}), ("KontextQueueStatus", {})):
        table = bench.result(node, **inputs).nodes["node"].texts["table"].splitlines()
        assert len(table) == 3 and max(map(len, table)) <= 80, table
        assert table[0].startswith("2 ")
