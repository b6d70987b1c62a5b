"""The line that stands on a node at the end says what became of every edit, and what is not known it does not say."""

from __future__ import annotations

from decimal import Decimal

import pytest
from kontext_bridge.editing.short import in_short
from kontext_bridge.oxen.errors import GenerationFailed, Misconfigured, TimedOut
from kontext_bridge.oxen.jobs.ends import End, Fate, dollars, line, stopped_line
from kontext_bridge.oxen.jobs.order import How
from kontext_bridge.oxen.jobs.progress import Progress, Stage, Together

CENTS = Decimal("0.04")
NEW, UNPRICED = End(Fate.NEW, CENTS), End(Fate.NEW)
BACK, FOUND = End(Fate.BROUGHT_BACK, CENTS), End(Fate.FOUND, CENTS)
BAD, WORSE = End(Fate.FAILED, why="the worker died"), End(Fate.FAILED, why="no such model")
ON, SENT, BEFORE = End(Fate.RUNS_ON), End(Fate.SUBMITTED), End(Fate.SUBMITTED_BEFORE)
GONE, UNSENT, ASKED, OPEN = (End(one) for one in (Fate.CANCELLED, Fate.NOT_SENT, Fate.CANCELLING, Fate.UNKNOWN))


@pytest.mark.parametrize(
    ("ends", "told"),
    [
        ([NEW], "done · 9 s · $0.04"),
        ([UNPRICED], "done · 9 s"),
        ([NEW] * 4, "4 of 4 done · 9 s · $0.16"),
        ([NEW, UNPRICED], "2 of 2 done · 9 s"),
        ([BACK], "brought back, not paid again"),
        ([BACK] * 3, "all 3 brought back, not paid again"),
        ([NEW, NEW, NEW, BACK], "3 new, 1 brought back · 9 s · $0.12"),
        ([FOUND], "found again, not paid twice · 9 s · $0.04"),
        ([End(Fate.COLLECTED, CENTS)] * 2, "both collected · 9 s"),
        ([SENT, SENT], "both submitted · 9 s"),
        ([SENT, BEFORE], "1 submitted, 1 submitted before · 9 s"),
        ([BAD], "the worker died"),
        ([BAD] * 2, "all 2 failed: the worker died"),
        ([NEW, BAD, BAD], "2 of 3 failed: the worker died · 1 new · 9 s · $0.04"),
        ([NEW, BAD, WORSE], "2 of 3 failed: the worker died (and 1 more reasons) · 1 new · 9 s · $0.04"),
        ([ON], "still running there; run again to go on waiting"),
        ([ON] * 2, "both still running there; run again to go on waiting"),
        ([NEW, ON], "1 new, 1 still running there; run again to go on waiting · 9 s · $0.04"),
    ],
)
def test_a_run_that_ended_by_itself_says_how(ends: list[End], told: str) -> None:
    assert line(ends, 9.2) == told


@pytest.mark.parametrize(
    ("ends", "told"),
    [
        ([GONE], "cancelled, at Oxen.ai too"),
        ([GONE] * 2, "cancelled, both at Oxen.ai too"),
        ([GONE] * 4, "cancelled, all 4 at Oxen.ai too"),
        ([UNSENT], "cancelled, nothing was sent"),
        ([UNSENT] * 3, "cancelled, nothing was sent"),
        ([ASKED], "cancelled here, Oxen.ai is being told"),
        ([GONE, ASKED], "cancelled, 1 at Oxen.ai too · 1 being cancelled at Oxen.ai"),
        ([GONE, GONE, UNSENT], "cancelled, 2 at Oxen.ai too · 1 not sent"),
        ([NEW, GONE], "cancelled, 1 at Oxen.ai too · 1 finished before and kept: run again to have it"),
        ([OPEN], "cancelled, not known to have stopped at Oxen.ai"),
    ],
)
def test_a_run_that_was_cancelled_says_only_what_is_known_of_the_service(ends: list[End], told: str) -> None:
    assert stopped_line(ends, cancelled=True) == told


def test_a_run_that_another_node_ended_does_not_claim_that_its_jobs_were_cancelled() -> None:
    assert stopped_line([ON], cancelled=False) == "stopped, still running there; run again to go on waiting"
    assert stopped_line([UNSENT] * 2, cancelled=False) == "stopped, nothing was sent"


@pytest.mark.parametrize(
    ("amount", "told"), [("0.04", "$0.04"), ("0.1", "$0.10"), ("12", "$12.00"), ("0.0025", "$0.0025"), ("0", "$0.00")]
)
def test_a_sum_is_written_as_money(amount: str, told: str) -> None:
    assert dollars(Decimal(amount)) == told


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("The disk is full. Make room on it.", "The disk is full"),
        ("It was not finished after 0.5 s. It goes on.", "It was not finished after 0.5 s"),
        ('It failed: "the worker died." Run again.', 'It failed: "the worker died."'),
        ("No Oxen.ai key: Settings > Kontext Bridge. Nothing was sent.", "No Oxen.ai key: Settings > Kontext Bridge"),
        ("Connect a picture, e.g. LoadImage. Then run.", "Connect a picture, e.g. LoadImage"),
        ("one\nline", "one line"),
    ],
)
def test_the_first_sentence_is_the_short_form(text: str, short: str) -> None:
    assert in_short(text) == short


def test_a_text_without_end_is_cut_where_a_node_has_no_more_room() -> None:
    assert len(in_short("word " * 100)) <= 120 and in_short("word " * 100).endswith("…")


def test_an_error_that_comes_before_any_edit_is_told_once_however_many_there_are() -> None:
    progress = Progress(4)
    progress.failed(Misconfigured("No Oxen.ai key: Settings > Kontext Bridge. Nothing was sent."))
    assert progress.last_text() == "No Oxen.ai key: Settings > Kontext Bridge"


def test_pictures_that_came_and_could_not_be_handed_on_are_not_told_as_done() -> None:
    progress = Progress(1)
    progress.ended(0, End.of_picture(How.NEW, CENTS))
    progress.failed(ValueError("The picture is too large. Shrink it."))
    assert progress.last_text() == "The picture is too large"


def test_what_is_under_way_when_a_run_is_stopped_is_told_as_such() -> None:
    progress = Progress(3)
    progress.at(0, Stage.PROCESSING)
    progress.ended(1, GONE)
    assert progress.stopped_text(cancelled=True) == (
        "cancelled, 1 at Oxen.ai too · 1 being cancelled at Oxen.ai · 1 not sent"
    )


def test_the_items_of_a_list_are_told_together() -> None:
    together = Together()
    first, second = Progress(2, together), Progress(1, together)
    for index in range(2):
        first.ended(index, NEW)
    second.failed(GenerationFailed("The worker died. Run again."))
    assert together.last_text().startswith("1 of 3 failed: The worker died · 2 new")
    second.ended(0, BACK)


def test_one_reason_for_all_items_of_a_list_is_told_once() -> None:
    together = Together()
    for member in [Progress(2, together), Progress(1, together)]:
        member.failed(Misconfigured("No key. Nothing was sent."))
    assert together.last_text() == "No key"


def test_a_job_that_goes_on_is_not_told_as_failed() -> None:
    alive, unseen = TimedOut("Not finished."), TimedOut("Not seen.")
    alive.alive = True
    assert End.of_error(alive).fate is Fate.RUNS_ON
    assert End.of_error(unseen).why == "not seen to be finished; run again to look once more"
