"""A list of pictures, for each of which the host runs the node by itself and all at once, is as good as a batch."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch
from comfy_api.latest import io
from kontext_bridge import host
from kontext_bridge.headless.folders import RunFolders
from kontext_bridge.headless.run import NodeFailed, RunInterrupted, run_workflow
from kontext_bridge.imaging.uri import parse_data_uri
from kontext_bridge.oxen.errors import OxenError, SomeFailed, SpendLimitReached, Unauthenticated
from kontext_bridge.oxen.jobs import doubt as doubt_module
from kontext_bridge.oxen.jobs.ledger import Ledger
from kontext_bridge.standin import Fault, Faults
from patience import PATIENCE, timed
from PIL import Image
from stubs import Heard, Taken

WORKER = Path(__file__).with_name("list_worker.py")
GO_ON = "go on with what succeeded"


class Several(io.ComfyNode):
    """The test's own values as one list, as Load Image Dataset From Folder gives its pictures."""

    values: dict[str, list[Any]] = {}  # noqa: RUF012

    @classmethod
    def define_schema(cls) -> io.Schema:
        outputs = [io.AnyType.Output(is_output_list=True)]
        return io.Schema(node_id="Several", inputs=[io.String.Input("name")], outputs=outputs)

    @classmethod
    def execute(cls, name: str) -> io.NodeOutput:
        return io.NodeOutput(cls.values[name])


def run_lists(bench: Any, nodes: dict[str, str] | str, lists: dict[str, list[Any]], **inputs: Any) -> Any:
    """The result of nodes (id to class) that all get these lists, and otherwise these values."""
    Several.values = lists
    named = {"node": nodes} if isinstance(nodes, str) else nodes
    workflow: dict[str, Any] = {name: {"class_type": "Several", "inputs": {"name": name}} for name in lists}
    for id, class_type in named.items():
        known = {one.id for one in bench.classes[class_type].GET_SCHEMA().inputs}
        linked = {name: [name, 0] for name in lists}
        values = {**bench.defaults(class_type), "prompt": "a hat", "output_format": "jpg", **inputs, **linked}
        workflow[id] = {"class_type": class_type, "inputs": {k: v for k, v in values.items() if k in known}}
        workflow[f"out {id}"] = {"class_type": "Taken", "inputs": {"value": [id, 0]}}
    bench.heard = Heard()
    host.set_local(bench.heard)
    folders = RunFolders(source=bench.folder, output=bench.folder / "output")
    classes = [*bench.classes.values(), Several, Taken]
    try:
        return run_workflow(workflow, classes, folders, bench.heard, host.interrupted)
    except NodeFailed as failed:
        raise failed.error from None


def pictures(count: int) -> list[torch.Tensor]:
    """Different pictures, each an IMAGE of its own."""
    return [torch.full((1, 24, 32, 3), number / 255) for number in range(count)]


def refuses(*numbers: int, why: str = "no such picture") -> Callable[[Any], Faults | None]:
    """A service that takes all of `pictures` but these, counted from 0."""

    def behaviour(request: Any) -> Faults | None:
        if request.route != "enqueue":
            return None
        with Image.open(BytesIO(parse_data_uri(request.json["input_image"]))) as picture:
            grey = picture.convert("RGB").getpixel((0, 0))[0]
        return Faults(error_text=why) if grey in numbers else None

    return behaviour


@pytest.fixture(autouse=True)
def small(monkeypatch: Any) -> None:
    """Results that are quickly drawn."""
    monkeypatch.setattr("kontext_bridge.standin.picture.SIZES", ((256, 192),))


def test_a_long_list_needs_few_handles_one_stream_and_pays_for_each_picture_once(serve: Any) -> None:
    bench = serve()
    done = subprocess.run(
        [sys.executable, str(WORKER), "300", "256"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=5 * PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["pictures"] == len(bench.server.billed) == 300, told
    assert told["handles"] <= 60 and told["threads"] <= 20, told
    assert told["left"] == 0, told
    assert len([one for one in bench.server.requests if one.route == "events"]) == 1


def test_an_item_that_fails_is_named_and_the_others_are_kept_for_the_next_run(serve: Any) -> None:
    refused = [refuses(2)]
    bench = serve(behaviour=lambda request: refused[0](request))
    with pytest.raises(SomeFailed) as raised:
        run_lists(bench, "KontextEdit", {"image": pictures(12)}, seed=5)
    said = str(raised.value)
    assert said.startswith('1 of 12 items of the list failed. Item 3 (32x24, seed 5, "a hat"): ')
    assert "no such picture" in said and "The other 11 are kept: run again and only what failed is paid for" in said
    assert len(bench.server.billed) == 11
    refused[0] = refuses()
    result = run_lists(bench, "KontextEdit", {"image": pictures(12)}, seed=5)
    assert len(result.nodes["out node"].outputs[0]) == 12
    assert len(bench.server.billed) == 12


def test_going_on_leaves_out_the_failed_item_alone_and_says_why_once(serve: Any) -> None:
    bench = serve(behaviour=lambda request: refuses(2)(request) or refuses(5, why="another reason")(request))
    result = run_lists(bench, "KontextEdit", {"image": pictures(6)}, seed=5, if_some_fail=GO_ON)
    images = result.nodes["out node"].outputs[0]
    assert [isinstance(one, torch.Tensor) for one in images] == [True, True, False, True, True, False]
    said = result.blocked["node"]
    assert said.count("items of the list failed") == 1 and said.startswith("2 of 6 items")
    assert "Item 3 (" in said and "Item 6 (" in said
    infos = [json.loads(one) for one in result.nodes["node"].outputs[1]]
    assert [len(one["edits"]) for one in infos] == [1, 1, 0, 1, 1, 0]
    assert "no such picture" in infos[2]["failed"][0]["error"] and infos[2]["failed"][0]["item"].startswith("3 (")


def test_where_all_items_fail_there_is_nothing_to_go_on_with(serve: Any) -> None:
    bench = serve(error_text="no such picture")
    with pytest.raises(OxenError, match=r"^All 5 items of the list failed: .*no such picture"):
        run_lists(bench, "KontextEdit", {"image": pictures(5)}, if_some_fail=GO_ON)


@pytest.mark.parametrize("policy", ["stop with the error", GO_ON])
def test_an_item_that_is_no_picture_does_not_keep_the_others_from_being_made(serve: Any, policy: str) -> None:
    bench = serve()
    images = [torch.full((1, 24, 32, 5), 0.5), *pictures(9), torch.full((1, 24, 32, 3), float("nan"))]
    try:
        result = run_lists(bench, "KontextEdit", {"image": images}, if_some_fail=policy)
        said = result.blocked["node"]
        assert policy == GO_ON and len(result.nodes["out node"].outputs[0]) == 11
    except SomeFailed as error:
        said = str(error)
        assert policy != GO_ON
    assert "2 of 11 items" in said and "Item 1 (" in said and "5 channels" in said
    assert "Item 11 (" in said and "NaN" in said
    assert len(bench.server.billed) == 9


def test_what_no_item_can_escape_stops_those_not_yet_sent(serve: Any) -> None:
    bench = serve(unauthorized=True)
    with pytest.raises(Unauthenticated, match=r"^All 40 items of the list failed: .*does not accept the API key"):
        run_lists(bench, "KontextEdit", {"image": pictures(40)})
    assert len(bench.paid) <= 8


def test_the_limit_for_a_run_holds_for_the_whole_list(serve: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("KONTEXT_BRIDGE_USD_PER_RUN", "0.40")
    monkeypatch.setattr("kontext_bridge.host.comfyui._process_run", "a run of its own")
    bench = serve()
    refused = (
        r"^All 30 items .*30 new pictures at \$0\.04 .*\$1\.20.*limit of \$0\.40 \(usd_per_run\)\. Nothing was sent"
    )
    for node in ("KontextEdit", "KontextSubmit"):
        with pytest.raises(SpendLimitReached, match=refused):
            run_lists(bench, node, {"image": pictures(30)})
    assert bench.paid == []
    assert len(run_lists(bench, "KontextEdit", {"image": pictures(10)}).nodes["out node"].outputs[0]) == 10
    monkeypatch.setattr("kontext_bridge.host.comfyui._process_run", "another run")
    with pytest.raises(
        SomeFailed, match=r"20 of 30 items.*20 new pictures.*over the limit.*The other 10 are kept"
    ) as raised:
        run_lists(bench, "KontextEdit", {"image": pictures(30)})
    assert "Nothing was sent" not in str(raised.value)
    assert len(bench.server.billed) == 10


def test_what_is_there_already_of_a_list_is_not_held_against_the_limit(serve: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("KONTEXT_BRIDGE_USD_PER_RUN", "0.12")
    monkeypatch.setattr("kontext_bridge.host.comfyui._process_run", "one run")
    bench = serve()
    run_lists(bench, "KontextEdit", {"image": pictures(3)})
    monkeypatch.setattr("kontext_bridge.host.comfyui._process_run", "the next run")
    assert len(run_lists(bench, "KontextEdit", {"image": pictures(6)}).nodes["out node"].outputs[0]) == 6
    assert len(bench.server.billed) == 6


def test_cancel_ends_a_whole_list_at_once_and_the_next_run_works(serve: Any) -> None:
    bench = serve()
    bench.server.hold()
    since_pressed = contextlib.ExitStack()
    took = []

    def cancel() -> None:
        bench.server.wait_for(lambda s: len(s.jobs) == 8)
        took.append(since_pressed.enter_context(timed()))
        host.request_interrupt()

    thread = threading.Thread(target=cancel)
    thread.start()
    with since_pressed, pytest.raises(RunInterrupted):
        run_lists(bench, "KontextEdit", {"image": pictures(40)})
    assert took[0].own < 1.0
    thread.join()
    bench.server.wait_for(lambda s: all(job.status.value == "cancelled" for job in s.jobs.values()))
    assert len(bench.paid) == 8, "those that waited for their turn were never sent"
    bench.server.release()
    result = run_lists(bench, "KontextEdit", {"image": pictures(12)})
    assert len(result.nodes["out node"].outputs[0]) == 12


def test_nodes_side_by_side_share_one_stream_and_one_ledger(serve: Any) -> None:
    bench = serve()
    with Opened() as opened:
        run_lists(bench, {"a": "KontextEdit", "b": "KontextEdit"}, {"image": pictures(10), "seed": list(range(10))})
    assert len([one for one in bench.server.requests if one.route == "events"]) == 1
    assert opened.most == 1
    assert len(bench.server.billed) == 10


class Opened:
    """How many ledgers of this process were open at once."""

    def __enter__(self) -> Opened:
        self.most = self._now = 0
        self._patch = pytest.MonkeyPatch()
        opening, closing = Ledger.__init__, Ledger.close

        def init(ledger: Any, *given: Any) -> None:
            opening(ledger, *given)
            if threading.current_thread().name != "kontext-bridge prune":
                self._now += 1
                self.most = max(self.most, self._now)

        def close(ledger: Any) -> None:
            closing(ledger)
            if threading.current_thread().name != "kontext-bridge prune":
                self._now -= 1

        self._patch.setattr(Ledger, "__init__", init)
        self._patch.setattr(Ledger, "close", close)
        return self

    def __exit__(self, *_: object) -> None:
        self._patch.undo()
        assert self._now == 0, "one was not closed"


def test_a_list_of_batches_takes_no_more_threads_than_a_list_of_pictures(serve: Any) -> None:
    bench = serve()
    most = [0]
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.005):
            most[0] = max(most[0], len([one for one in threading.enumerate() if one.name.startswith("kontext-")]))

    thread = threading.Thread(target=look)
    thread.start()
    batches = [torch.cat(pictures(80)[start : start + 8]) for start in range(0, 80, 8)]
    run_lists(bench, "KontextEdit", {"image": batches})
    over.set()
    thread.join()
    assert len(bench.server.billed) == 80
    assert most[0] <= 20


def test_a_list_has_one_bar_that_tells_of_all_items(serve: Any) -> None:
    bench = serve()
    run_lists(bench, "KontextEdit", {"image": pictures(20)})
    fractions = bench.heard.fractions
    assert fractions == sorted(fractions) and [one for one in fractions if one >= 1.0] == [1.0]
    assert "20 of 20 done" in bench.heard.texts[-1]


def test_submitting_a_list_goes_on_and_stops_as_editing_one_does(serve: Any) -> None:
    bench = serve(behaviour=refuses(2))
    with pytest.raises(SomeFailed, match=r"1 of 6 items of the list failed. Item 3 \(32x24.*The other 5 are kept"):
        run_lists(bench, "KontextSubmit", {"image": pictures(6)})
    result = run_lists(bench, "KontextSubmit", {"image": pictures(6)}, if_some_fail=GO_ON)
    jobs = result.nodes["node"].outputs[0]
    assert [hasattr(one, "generation_ids") for one in jobs] == [True, True, False, True, True, True]
    assert len(bench.server.billed) == 5
    ids = [job.generation_ids[0] for job in jobs if hasattr(job, "generation_ids")]
    bench.server.wait_for(lambda s: all(job.status.terminal for job in s.jobs.values()))
    unknown = "00000000-0000-4000-8000-000000000000"
    collected = run_lists(bench, "KontextCollect", {"generation_ids": [*ids, unknown]}, if_some_fail=GO_ON)
    assert [isinstance(one, torch.Tensor) for one in collected.nodes["node"].outputs[0]] == [True] * 5 + [False]
    assert f"Item 6 ({unknown})" in collected.blocked["node"]
    with pytest.raises(SomeFailed, match="with Kontext Edit or Kontext Submit"):
        run_lists(bench, "KontextCollect", {"generation_ids": [*ids, unknown]})


def test_a_list_of_one_is_one_edit_and_raises_its_own_error_whatever_the_policy(serve: Any) -> None:
    bench = serve(run_fails=Fault("the worker died"))
    with pytest.raises(OxenError, match=r"^The edit failed at Oxen.ai: .*the worker died.* Generation \S+\.$"):
        run_lists(bench, "KontextEdit", {"image": pictures(1)}, if_some_fail=GO_ON)


def test_a_limit_without_a_price_to_hold_against_is_told_for_the_list(serve: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("KONTEXT_BRIDGE_USD_PER_RUN", "1")
    bench = serve(price_missing=True)
    with pytest.raises(SpendLimitReached, match=r"^All 30 items .* Nothing was sent"):
        run_lists(bench, "KontextEdit", {"image": pictures(30)})
    assert bench.paid == []


def test_what_is_kept_is_handed_over_where_nothing_new_can_be_made(serve: Any) -> None:
    bench = serve()
    run_lists(bench, "KontextEdit", {"image": pictures(12)[8:]})
    bench.server.set(unauthorized=True)
    result = run_lists(bench, "KontextEdit", {"image": pictures(12)}, if_some_fail=GO_ON)
    images = result.nodes["node"].outputs[0]
    assert [isinstance(one, torch.Tensor) for one in images] == [False] * 8 + [True] * 4
    assert "8 of 12 items of the list failed" in result.blocked["node"]
    assert len(bench.server.billed) == 4


@pytest.mark.parametrize("node", ["KontextEdit", "KontextSubmit"])
def test_always_new_on_account_of_one_item_in_doubt_pays_for_that_one_alone(
    serve: Any, monkeypatch: pytest.MonkeyPatch, node: str
) -> None:
    monkeypatch.setattr(doubt_module, "_PAUSES", (0.0,))
    monkeypatch.setattr(doubt_module, "SETTLE_SECONDS", 0.2)
    bench = serve(answer_dropped=Fault(times=1), list_error=True)
    with pytest.raises(OxenError, match="always new"):
        run_lists(bench, node, {"image": pictures(4)}, seed=3)
    assert len(bench.paid) == 4
    run_lists(bench, node, {"image": pictures(4)}, seed=3, result="always new")
    assert len(bench.paid) == 5, "only the one that may have been paid for"
    if node == "KontextEdit":
        run_lists(bench, node, {"image": pictures(4)}, seed=3, result="always new")
        assert len(bench.paid) == 9, "nothing is in doubt any more"


@pytest.mark.parametrize("told", [False, True], ids=["at first", "of one that was told"])
def test_items_that_are_alike_are_paid_once_by_a_run_that_loses_their_answers(
    serve: Any, monkeypatch: pytest.MonkeyPatch, told: bool
) -> None:
    monkeypatch.setattr(doubt_module, "_PAUSES", (0.0,))
    monkeypatch.setattr(doubt_module, "SETTLE_SECONDS", 0.2)
    bench = serve(answer_dropped=True, list_error=True)
    for run in range(2 if told else 1):
        with pytest.raises(OxenError, match="always new"):
            run_lists(bench, "KontextEdit", {"image": pictures(1) * 3}, seed=3, result="always new")
        assert len(bench.paid) == run + 1
