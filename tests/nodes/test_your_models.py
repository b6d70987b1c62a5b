"""Kontext Models: what the account has, and what is done with it, in words that say what it costs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kontext_bridge import host
from kontext_bridge.oxen.errors import InvalidParameters
from kontext_bridge.oxen.jobs.weights import NotWeights
from kontext_bridge.standin import Fault

ASLEEP, AWAKE = "oxen:ox-asleep-fern", "oxen:ox-awake-birch"
WAKE, SLEEP, BRING = "wake it: billed by the hour", "put it to sleep", "bring its LoRA to models/loras"


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {"_FIRST_PAUSE": 0.02, "_LONGEST_PAUSE": 0.05}.items():
        monkeypatch.setattr(f"kontext_bridge.oxen.jobs.awake.{name}", seconds)


@pytest.fixture
def loras(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "models" / "loras"
    monkeypatch.setattr(host, "model_folder", lambda kind: folder)
    return folder


def tend(bench: Any, **inputs: Any) -> tuple[list[str], dict[str, Any]]:
    """Ids and info."""
    bench.server.own.takes_s = 0.02
    run = bench.result("OxenModels", **inputs).nodes["node"]
    ids, info = run.outputs
    return ids, json.loads(info[0])


def state(bench: Any, id: str) -> str:
    return bench.server.own.find(id).state


def test_the_list_wakes_nothing_and_says_state_base_and_cost(bench: Any) -> None:
    ids, info = tend(bench)
    assert ASLEEP in ids and "oxen:ox-writes-text" not in ids
    told = {one["id"]: one for one in info["models"]}
    assert told[ASLEEP]["state"] == "inactive" and told[ASLEEP]["usd_per_hour"] == 4.87
    assert told[ASLEEP]["base"] == "black-forest-labs/FLUX.1-Kontext-dev"
    assert told["oxen:ox-of-unknown-price"]["usd_per_hour"] is None
    assert told["bessie/my-edits/ox-new-clover"]["state"] == "never deployed"
    assert told["bessie/my-edits/ox-in-training"]["training"] == "running"
    assert not any(one.method == "POST" for one in bench.server.requests)


def test_without_a_list_of_fine_tunes_the_models_are_there_all_the_same(serve: Callable[..., Any]) -> None:
    ids, info = tend(serve(server_error=Fault(route="fine_tunes")))
    assert ids and "could not be had" in info["note"]


def test_with_no_model_there_is_no_empty_list_on_which_comfyui_would_break(bench: Any) -> None:
    bench.server.own.models.clear()
    ids, info = tend(bench)
    (blocked,) = ids
    assert isinstance(blocked, host.Blocked) and "no model_id for Edit Picture. Nothing was sent" in blocked.message
    assert info["models"] == []


def test_woken_by_its_label_then_put_to_sleep(bench: Any) -> None:
    _, info = tend(bench, action=WAKE, model_id=ASLEEP)
    assert state(bench, ASLEEP) == "active" and "$4.87 an hour" in info["done"]
    assert next(one for one in info["models"] if one["id"] == ASLEEP)["woken_from_here"]
    _, info = tend(bench, action=SLEEP, model_id=ASLEEP.removeprefix("oxen:"))
    assert state(bench, ASLEEP) != "active" and "costs nothing" in info["done"]
    assert not any(one["woken_from_here"] for one in info["models"])


@pytest.mark.parametrize("id", ["ox-new-clover", "bessie/my-edits/ox-new-clover", "ft_ox-new-clover"])
def test_a_finished_fine_tune_is_deployed_once_by_waking_it(bench: Any, id: str) -> None:
    _, info = tend(bench, action=WAKE, model_id=id)
    assert "oxen:ox-new-clover is awake" in info["done"]
    assert bench.server.own.models["ox-new-clover"].wakings == 1


def test_what_is_awake_already_can_be_put_to_sleep_by_whoever_asks(bench: Any) -> None:
    tend(bench, action=SLEEP, model_id=AWAKE)
    assert state(bench, AWAKE) != "active"


def test_a_limit_an_unfinished_training_and_an_unknown_id_start_nothing(bench: Any, monkeypatch: Any) -> None:
    with pytest.raises(Exception, match="only a finished one"):
        tend(bench, action=WAKE, model_id="ox-in-training")
    with pytest.raises(Exception, match="no model of yours"):
        tend(bench, action=WAKE, model_id="nobody")
    with pytest.raises(Exception, match="which one"):
        tend(bench, action=SLEEP)
    monkeypatch.setenv("KONTEXT_BRIDGE_USD_PER_RUN", "50")
    for id in (ASLEEP, "ox-new-clover"):
        with pytest.raises(Exception, match="A spend limit is set"):
            tend(bench, action=WAKE, model_id=id)
    assert not any(one.method == "POST" for one in bench.server.requests)


def test_its_lora_comes_into_the_folder_of_loras(bench: Any, loras: Path) -> None:
    _, info = tend(bench, action=BRING, model_id=ASLEEP)
    assert (loras / "ox-asleep-fern.safetensors").stat().st_size == bench.server.own.size
    assert "in models/loras, for Kontext LoRA" in info["done"] and "does not know" not in info["done"]
    _, again = tend(bench, action=BRING, model_id="bessie/my-edits/ox-asleep-fern")
    assert "was there already" in again["done"] and len(list(loras.iterdir())) == 1


@pytest.mark.parametrize(
    ("came", "words"),
    [
        (b"PK\x03\x04 an archive", "may run code"),
        (b"\x80\x02 a pickle", "may run code"),
        (b"<!doctype html>", "a web page"),
        (b"\0" * 99, "not a safetensors file"),
    ],
)
def test_what_is_no_safetensors_file_is_never_kept(bench: Any, loras: Path, came: bytes, words: str) -> None:
    name = "ox-asleep-fern"
    bench.server._service.files.put(("bessie", "my-edits"), f"{name}/models/{name}/model.safetensors", came)
    with pytest.raises(NotWeights, match=words):
        bench.run("OxenModels", action=BRING, model_id=ASLEEP)
    assert list(loras.iterdir()) == []


def test_off_comfyui_the_words_name_the_command(bench: Any) -> None:
    with pytest.raises(InvalidParameters, match=r"kontext_bridge\.models fetch"):
        bench.run("OxenModels", action=BRING, model_id=ASLEEP)
