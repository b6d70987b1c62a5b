"""Edit Picture and Submit Picture with a fine-tune of one's own: asleep it is refused, woken only where allowed."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from kontext_bridge import host
from kontext_bridge.headless.run import RunInterrupted
from kontext_bridge.oxen.errors import GenerationFailed, InvalidParameters, ModelAsleep, SpendLimitReached
from kontext_bridge.standin import Fault

from .conftest import picture

ASLEEP = "oxen:ox-asleep-fern"
OWN = {"model": "your own Kontext", "model.model_id": ASLEEP, "model.output_format": "jpg"}
WAKE = {**OWN, "model.if_asleep": "wake it: billed by the hour"}
LEAVE = {"model.afterwards": "leave it awake: billed on"}


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {"_FIRST_PAUSE": 0.02, "_LONGEST_PAUSE": 0.05, "_SLEEP_SECONDS": 0.3}.items():
        monkeypatch.setattr(f"kontext_bridge.oxen.jobs.awake.{name}", seconds)


def quick(bench: Any) -> Any:
    bench.server.own.takes_s = 0.05
    return bench


def edit(bench: Any, **inputs: Any) -> tuple[Any, dict[str, Any]]:
    image, info, *_ = bench.run("OxenEdit", image=picture(inputs.pop("count", 1)), prompt="a hat", **inputs)
    return image, json.loads(info)


def test_asleep_and_not_allowed_it_is_refused_with_its_cost_and_nothing_is_sent(bench: Any) -> None:
    with pytest.raises(ModelAsleep, match=r"is asleep\. Awake it runs \$4\.87 an hour"):
        edit(quick(bench), **OWN)
    assert not bench.paid and not bench.server.own.models["ox-asleep-fern"].wakings


def test_allowed_it_is_woken_edits_with_kontexts_inputs_and_sleeps_again_and_a_repeat_wakes_nothing(
    bench: Any,
) -> None:
    quick(bench)
    image, info = edit(bench, **{**WAKE, "model.steps": 20}, count=2)
    assert len(image) == 2 and info["model"] == ASLEEP and "by the hour" in info["price"]
    assert info["your_model"] | {"base": ""} == {
        "usd_per_hour": 4.87,
        "base": "",
        "woken": True,
        "state": "put to sleep",
    }
    sent = [one.json for one in bench.server.requests if one.route == "enqueue"]
    assert len(sent) == 2 and {one["model"] for one in sent} == {ASLEEP}
    assert sent[0]["num_inference_steps"] == 20 and sent[0]["aspect_ratio"] == "match_input_image"
    assert not {"model_id", "if_asleep", "afterwards"} & set(sent[0])
    model = bench.server.own.models["ox-asleep-fern"]
    assert model.wakings == 1 and bench.server.own.find(ASLEEP).state != "active"
    again, told = edit(bench, **OWN, count=2, **{"model.steps": 20})
    assert len(again) == 2 and told["edits"][0]["how"] == "reused" and model.wakings == 1
    assert not any("waking" in text for text in bench.heard.texts)


def test_on_the_node_its_cost_is_said_while_it_wakes(bench: Any) -> None:
    quick(bench).server.own.takes_s = 0.4
    edit(bench, **WAKE)
    assert any("waking" in text and "$4.87 an hour" in text for text in bench.heard.texts), bench.heard.texts


def test_left_awake_where_asked(bench: Any) -> None:
    _, info = edit(quick(bench), **WAKE, **LEAVE)
    assert bench.server.own.find(ASLEEP).state == "active" and "left awake, at $4.87" in info["your_model"]["state"]


@pytest.mark.parametrize("wait", ["events and polling", "one blocking request"])
def test_it_is_put_to_sleep_after_an_edit_that_failed_and_the_error_says_so(
    serve: Callable[..., Any], wait: str
) -> None:
    bench = quick(serve(run_fails="the worker died"))
    with pytest.raises((GenerationFailed, InvalidParameters), match=f"{ASLEEP} was put to sleep"):
        edit(bench, **WAKE, wait=wait)
    assert bench.server.own.find(ASLEEP).state != "active"


def test_where_sleeping_fails_the_picture_comes_and_the_node_says_what_it_costs(serve: Callable[..., Any]) -> None:
    bench = quick(serve(server_error=Fault(route="deactivate")))
    image, info = edit(bench, **WAKE)
    assert len(image) == 1 and "It goes on costing $4.87 an hour" in info["your_model"]["warning"]
    assert any("It goes on costing $4.87 an hour" in text for text in bench.heard.texts), bench.heard.texts


def test_cancelled_it_is_put_to_sleep(serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def pressed(request: Any) -> None:
        if request.route == "enqueue":
            host.request_interrupt()

    bench = quick(serve(behaviour=pressed, stuck=True))
    with pytest.raises(RunInterrupted):
        edit(bench, **WAKE)
    bench.server.wait_for(lambda s: s.own.find(ASLEEP).state != "active")
    assert bench.server.own.models["ox-asleep-fern"].wakings == 1


def test_a_limit_refuses_and_nothing_is_woken(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KONTEXT_BRIDGE_USD_PER_DAY", "100")
    with pytest.raises(SpendLimitReached):
        edit(quick(bench), **WAKE)
    assert not bench.paid and not bench.server.own.models["ox-asleep-fern"].wakings


@pytest.mark.parametrize("id", ["", "  "])
def test_without_an_id_the_words_say_where_it_is_found(bench: Any, id: str) -> None:
    with pytest.raises(InvalidParameters, match="Kontext Models lists them"):
        edit(bench, **{**OWN, "model.model_id": id})
    with pytest.raises(Exception, match="a fine-tune of your own is your own Kontext"):
        edit(bench, model="oxen:ox-asleep-fern")


def test_submit_wakes_where_allowed_and_leaves_it_awake_for_its_jobs(bench: Any) -> None:
    quick(bench)
    with pytest.raises(ModelAsleep):
        bench.run("OxenSubmit", image=picture(), prompt="a hat", **OWN)
    _, ids = bench.run("OxenSubmit", image=picture(), prompt="a hat", **WAKE)
    assert ids and bench.server.own.find(ASLEEP).state == "active"
    inputs = next(one for one in bench.classes["OxenSubmit"].GET_SCHEMA().inputs if one.id == "model")
    (own,) = (option for option in inputs.options if option.key == "your own Kontext")
    names = [one.id for one in own.inputs]
    assert names[:2] == ["model_id", "if_asleep"] and "afterwards" not in names
