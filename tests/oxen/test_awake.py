"""A model of one's own: nothing is woken unasked, it is woken once, put to sleep by the last, and a doubt is said."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from kontext_bridge.oxen.api.client import Client
from kontext_bridge.oxen.api.own_models import Deployment, deploy, fine_tunes, is_kontext, look_at, own_models
from kontext_bridge.oxen.control import Control
from kontext_bridge.oxen.errors import (
    ConnectionFailed,
    Interrupted,
    InvalidParameters,
    ModelAsleep,
    ModelNotFound,
    OxenError,
    SpendLimitReached,
    Upstream,
)
from kontext_bridge.oxen.jobs import awake as module
from kontext_bridge.oxen.jobs.awake import Awake, Need, Rule, WakingNotes
from kontext_bridge.oxen.settings import Settings
from kontext_bridge.standin import Fault

ASLEEP, AWAKE = "oxen:ox-asleep-fern", "oxen:ox-awake-birch"


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses of hundredths of seconds; a minute's doubt is over in a part of one."""
    for name, seconds in {"_FIRST_PAUSE": 0.02, "_LONGEST_PAUSE": 0.05, "SETTLE_SECONDS": 0.5}.items():
        monkeypatch.setattr(module, name, seconds)


class Own:
    """The account's models at a stand-in, and runs that need one."""

    def __init__(self, remote: Any) -> None:
        self.remote = remote
        self.server = remote.server
        self.server.own.takes_s = 0.05

    def client(self, control: Control | None = None) -> Client:
        return Client(self.remote.account, control)

    def run(self, model: str = ASLEEP, control: Control | None = None, settings: Settings | None = None, **rule: Any):
        said: list[str | None] = []
        one = Awake(
            self.client(control), self.remote.home, settings or Settings(), Rule(model, **rule), say=said.append
        )
        return one, said

    def state(self, model: str = ASLEEP) -> str:
        found = self.server.own.find(model)
        return found.state if found else ""

    def wakings(self, model: str = ASLEEP) -> int:
        return self.server.own.models[model.removeprefix("oxen:")].wakings

    def count(self, route: str) -> int:
        return self.remote.count(route)

    def note(self, model: str = ASLEEP) -> Any:
        return WakingNotes(self.remote.home, self.server.url, model).read()


@pytest.fixture
def own(serve: Callable[..., Any]) -> Own:
    return Own(serve())


def test_the_list_says_state_base_and_cost_of_every_own_model_and_no_other(own: Own) -> None:
    own.server.own.takes_s = 100
    found = {one.id: one for one in own_models(own.client())}
    assert {one.state for one in found.values()} == set(Deployment) - {Deployment.NONE}
    fern, oak = found[ASLEEP], found["oxen:ox-of-unknown-price"]
    assert (fern.state, fern.usd_per_hour, fern.price) == (Deployment.INACTIVE, Decimal("4.87"), "$4.87 an hour")
    assert is_kontext(fern.base) and not is_kontext(found["oxen:ox-writes-text"].base)
    assert oak.usd_per_hour is None and "does not tell" in oak.price
    tunes = {one.name: one for one in fine_tunes(own.client())}
    assert tunes["ox-new-clover"].is_finished and not tunes["ox-new-clover"].model
    assert tunes["ox-asleep-fern"].model == ASLEEP and tunes["ox-asleep-fern"].repository == "bessie/my-edits"
    assert not tunes["ox-in-training"].is_finished


@pytest.mark.parametrize("spelled", [ASLEEP, ASLEEP.removeprefix("oxen:")])
def test_an_id_is_found_with_and_without_its_prefix(own: Own, spelled: str) -> None:
    assert look_at(own.client(), spelled).id == ASLEEP


def test_what_is_no_own_model_is_told_apart(own: Own) -> None:
    with pytest.raises(ModelNotFound, match="never deployed"):
        look_at(own.client(), "oxen:ox-new-clover")
    with pytest.raises(InvalidParameters, match="always awake"):
        look_at(own.client(), "flux-kontext-dev")
    for bad in ("", "  ", "..", "x" * 300, "a\nb", own.server.key):
        with pytest.raises(InvalidParameters):
            look_at(own.client(), bad)


@pytest.mark.parametrize("model", [ASLEEP, "oxen:ox-broken-clay", "oxen:ox-foggy-dale", "oxen:ox-of-unknown-price"])
def test_what_is_not_awake_is_not_woken_unless_that_was_allowed(own: Own, model: str) -> None:
    one, _ = own.run(model)
    with pytest.raises(ModelAsleep, match="was not woken, no edit was sent, nothing was charged") as refused:
        one.wake()
    one.leave()
    price = "does not tell" if "unknown" in model else "$4.87 an hour"
    assert price in str(refused.value)
    assert own.count("activate") == own.count("deactivate") == 0 and own.note(model) is None


def test_woken_used_and_put_to_sleep_with_its_cost_said_before(own: Own) -> None:
    one, said = own.run(wakes=True)
    one.wake()
    assert own.state() == "active" and own.wakings() == 1 and own.note()["woken_at"]
    first = next(text for text in said if text and text.startswith("waking"))
    assert first == f"waking {ASLEEP}: $4.87 an hour from now on"
    one.leave()
    assert own.state() in ("deactivating", "inactive") and own.note() is None
    assert one.told == {
        "usd_per_hour": 4.87,
        "base": "black-forest-labs/FLUX.1-Kontext-dev",
        "woken": True,
        "state": "put to sleep",
    }
    assert said[-1] is None and one.left == ""


def test_what_was_awake_before_is_left_awake(own: Own) -> None:
    one, _ = own.run(AWAKE, wakes=True, sleeps=True)
    one.wake()
    one.leave()
    assert own.state(AWAKE) == "active" and own.count("activate") == own.count("deactivate") == 0
    assert one.told["state"] == "left awake, as it was before this run"


def test_left_awake_where_that_was_asked_and_the_next_run_knows_that_it_was_woken_here(own: Own) -> None:
    one, _ = own.run(wakes=True, sleeps=False)
    one.wake()
    one.leave()
    assert own.state() == "active" and own.note() is not None and "left awake" in one.told["state"]
    other, _ = own.run(sleeps=True)
    other.wake()
    other.leave()
    assert own.state() != "active" and own.note() is None and own.wakings() == 1


def test_two_runs_wake_a_model_once_and_the_last_puts_it_to_sleep(own: Own) -> None:
    own.server.own.takes_s = 0.3
    runs = [own.run(wakes=True)[0] for _ in range(3)]
    waking = [own.remote.in_thread(one.wake) for one in runs]
    for one in waking:
        one.result()
    assert own.wakings() == 1 and own.count("activate") == 1
    for one in runs[:2]:
        one.leave()
        assert own.state() == "active" and "another run here needs it" in one.told["state"]
    runs[2].leave()
    assert own.state() != "active" and own.note() is None and own.count("deactivate") == 1


def test_a_run_that_is_to_come_keeps_it_awake_and_a_killed_one_does_not(own: Own) -> None:
    notes = WakingNotes(own.remote.home, own.server.url, ASLEEP)
    to_come = Need(notes)
    one, _ = own.run(wakes=True)
    one.wake()
    one.leave()
    assert own.state() == "active"
    to_come.release()
    (notes.folder / f"{notes.name}-of-a-killed-run.lock").touch()
    last, _ = own.run()
    last.wake()
    last.leave()
    assert own.state() != "active" and not list(notes.folder.glob("*-*.lock"))


def test_a_limit_refuses_what_is_billed_by_time(own: Own) -> None:
    one, _ = own.run(settings=Settings(usd_per_day=Decimal(100)), wakes=True)
    with pytest.raises(SpendLimitReached, match=r"billed by time, \$4.87 an hour"):
        one.wake()
    one.leave()
    assert own.count("activate") == 0


def test_another_base_is_refused_before_anything_is_woken(own: Own) -> None:
    one, _ = own.run("oxen:ox-writes-text", wakes=True)
    with pytest.raises(ModelAsleep, match="trained from Qwen/Qwen3-8B"):
        one.wake()
    one.leave()
    assert own.count("activate") == 0


def test_what_is_falling_asleep_is_woken_once_it_is_asleep(own: Own) -> None:
    one, _ = own.run("oxen:ox-dozing-reed", wakes=True)
    one.wake()
    one.leave()
    assert own.wakings("oxen:ox-dozing-reed") == 1


@pytest.mark.parametrize(
    ("model", "words"), [("oxen:ox-fails-to-wake", "failed to wake"), ("oxen:ox-never-wakes", "was not awake after")]
)
def test_what_fails_to_wake_or_never_does_is_told_and_put_to_sleep(
    own: Own, model: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LONGEST_WAIT", 0.6)
    one, _ = own.run(model, wakes=True)
    with pytest.raises(ModelAsleep, match=words):
        one.wake()
    one.leave()
    assert own.state(model) in ("deactivating", "inactive") and own.note(model) is None
    assert one.afterword == f"{model} was put to sleep."


@pytest.mark.parametrize("fault", ["answer_dropped", "answer_cut", "answer_error", "answer_never"])
def test_waking_is_never_asked_for_twice_where_its_answer_is_lost(
    serve: Callable[..., Any], fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Own(serve(**{fault: Fault(route="activate", times=1)}))
    monkeypatch.setattr("kontext_bridge.oxen.http.transport.READ_SECONDS", 0.3)
    monkeypatch.setattr("kontext_bridge.oxen.api.own_models._ACT_SECONDS", 0.3)
    one, _ = own.run(wakes=True)
    one.wake()
    assert own.count("activate") == 1 == own.wakings()
    one.leave()
    assert own.state() != "active"


def test_a_request_to_wake_that_never_arrived_is_told_and_not_repeated(serve: Callable[..., Any]) -> None:
    own = Own(serve(never_answers=Fault(route="activate", times=1)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kontext_bridge.oxen.api.own_models._ACT_SECONDS", 0.2)
        one, _ = own.run(wakes=True)
        with pytest.raises(ModelAsleep, match="was asked to wake, and sleeps on"):
            one.wake()
        one.leave()
    assert own.count("activate") == 1 and own.wakings() == 0 and own.note() is None


def test_what_refuses_to_wake_is_told_and_leaves_no_note(serve: Callable[..., Any]) -> None:
    own = Own(serve(out_of_credits=Fault(route="activate")))
    one, _ = own.run(wakes=True)
    with pytest.raises(OxenError, match="could not be woken"):
        one.wake()
    one.leave()
    assert own.note() is None and own.count("activate") == 1


@pytest.mark.parametrize("times", [3, None])
def test_a_connection_lost_while_it_wakes_is_borne_for_a_while(
    serve: Callable[..., Any], times: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_OUTAGE_SECONDS", 0.4)
    monkeypatch.setattr(module, "_SLEEP_SECONDS", 0.2)
    own = Own(serve(server_error=Fault(route="model", times=times, after=1)))
    one, _ = own.run(wakes=True)
    if times:
        one.wake()
        one.leave()
        assert own.state() != "active"
        return
    with pytest.raises((Upstream, ConnectionFailed), match="could not be asked any more whether it is awake"):
        one.wake()
    one.leave()
    assert "It goes on costing $4.87 an hour" in one.left and own.note() is not None


def test_cancel_while_it_wakes_ends_the_wait_at_once_and_puts_it_to_sleep(own: Own) -> None:
    own.server.own.takes_s = 0.6
    control = Control()
    one, _ = own.run(control=control, wakes=True)
    waking = own.remote.in_thread(one.wake)
    own.server.wait_for(lambda s: own.state() == "deploying")
    since = time.monotonic()
    control.interrupt()
    with pytest.raises(Interrupted):
        waking.result()
    assert time.monotonic() - since < 1
    one.leave()
    assert own.state() in ("deactivating", "inactive") and own.note() is None


@pytest.mark.parametrize("fault", ["server_error", "unauthorized"])
def test_where_sleeping_fails_it_is_said_that_it_costs_on(
    serve: Callable[..., Any], fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SLEEP_SECONDS", 0.2)
    own = Own(serve(**{fault: Fault(route="deactivate")}))
    one, _ = own.run(wakes=True)
    one.wake()
    one.leave()
    assert own.state() == "active" and own.note() is not None
    assert "was not put to sleep" in one.left and "It goes on costing $4.87 an hour" in one.left


def test_a_model_that_still_has_jobs_of_whomever_is_not_put_to_sleep(own: Own) -> None:
    one, _ = own.run(wakes=True)
    one.wake()
    own.server.hold("processing")
    job = {"model": ASLEEP, "prompt": "a hat", "input_image": "data:image/png;base64,x"}
    own.remote.transport().send("POST", "/api/ai/queue", json=job, paid=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BUSY_SECONDS", 0.1)
        one.leave()
    assert own.state() == "active" and own.note() is not None and "1 edit with it still there" in one.left
    own.server.release()


@pytest.mark.parametrize("ways", [{"whole", "checkpoint"}, {"whole"}, {"checkpoint"}, set()])
def test_a_fine_tune_is_deployed_once_by_whichever_route_there_is(own: Own, ways: set[str]) -> None:
    own.server.own.deploys = ways
    (tune,) = (one for one in fine_tunes(own.client()) if one.name == "ox-new-clover")
    if not ways:
        with pytest.raises(ModelNotFound, match="neither of the two routes"):
            deploy(own.client(), tune)
    else:
        assert deploy(own.client(), tune) == "oxen:ox-new-clover"
    assert own.wakings("ox-new-clover") == bool(ways)
    assert own.count("deploy_checkpoint") == 1 and own.count("deploy") == ("checkpoint" not in ways)


def test_a_deployment_whose_answer_is_lost_is_not_tried_by_the_other_route(serve: Callable[..., Any]) -> None:
    own = Own(serve(answer_status=Fault("404", route="deploy_checkpoint")))
    (tune,) = (one for one in fine_tunes(own.client()) if one.name == "ox-new-clover")
    assert deploy(own.client(), tune) == "oxen:ox-new-clover", "it was begun, whatever a gateway says"
    own = Own(serve(answer_dropped=Fault(route="deploy_checkpoint")))
    with pytest.raises(OxenError):
        deploy(own.client(), tune)
    assert own.count("deploy") == 0 and own.wakings("ox-new-clover") == 1
    own = Own(serve(html_reply=Fault(route="none"), answer_status=Fault("404", route="deploy_checkpoint")))
    own.server.own.deploys = {"whole"}
    with pytest.raises(ModelNotFound, match="not deployed by the other route either"):
        deploy(own.client(), tune)
    assert own.count("deploy") == 0


def test_notes_hold_no_key_and_an_unreadable_one_counts_as_woken_here(own: Own) -> None:
    one, _ = own.run(wakes=True)
    one.wake()
    notes = WakingNotes(own.remote.home, own.server.url, ASLEEP)
    (path,) = notes.folder.glob("*.json")
    assert own.server.key not in path.read_text() and json.loads(path.read_text())["model"] == ASLEEP
    path.write_text("{")
    one.leave()
    assert own.state() != "active" and threading.active_count() < 50
