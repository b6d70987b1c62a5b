from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import math
import threading
import time
from typing import Any

import pytest
import torch
from kontext_bridge import host
from kontext_bridge.headless.calls import Blocked
from kontext_bridge.headless.folders import RunFolders
from kontext_bridge.headless.run import RunInterrupted, run_workflow
from kontext_bridge.oxen.errors import OxenError
from kontext_bridge.oxen.jobs import finishing
from kontext_bridge.oxen.jobs.ledger import Ledger
from kontext_bridge.standin import Fault, Timing
from patience import PATIENCE

SLOW = Timing(queued_s=0.2, processing_s=0.5)


def told(info: dict[str, Any], name: str) -> list[Any]:
    return [edit.get(name) for edit in info["edits"]]


def test_a_batch_comes_back_in_order_with_seeds_counting_up(bench: Any, images: Any) -> None:
    pictures, info = bench.edit(images(3), seed=2**31 - 1)
    assert pictures.shape[0] == 3 and pictures.dtype == torch.float32
    assert told(info, "edit") == [1, 2, 3]
    assert told(info, "seed") == [2**31 - 1, 0, 1], "as sent"
    for number, picture in enumerate(pictures):
        alone, _ = bench.edit(images(3)[number : number + 1], seed=2**31 - 1 + number)
        assert torch.equal(alone[0], picture)
    assert len(bench.paid) == 3


def test_variations_of_each_picture_come_side_by_side_with_seeds_of_their_own(bench: Any, images: Any) -> None:
    pictures, info = bench.edit(images(2), variations=2, seed=10)
    assert pictures.shape[0] == 4 and told(info, "seed") == [10, 11, 12, 13]
    sent = [request.json for request in bench.server.requests if request.route == "enqueue"]
    by_seed = {one["seed"]: one["input_image"] for one in sent}
    assert by_seed[10] == by_seed[11] != by_seed[12] == by_seed[13]


def test_info_tells_what_was_sent_and_what_came(bench: Any, images: Any) -> None:
    pictures, info = bench.edit(images(1, 24, 32), seed=5)
    edit = info["edits"][0]
    assert edit["generation_id"] in bench.server.jobs
    assert (edit["seed"], edit["how"], edit["size_sent"]) == (5, "new", "32x24")
    assert edit["size_returned"] == f"{pictures.shape[2]}x{pictures.shape[1]}"
    assert edit["cost_usd"] == info["cost_usd"] == 0.04
    assert edit["resized"] is False and edit["seconds"] >= 0


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_picture_of_any_number_of_channels_goes_out_and_an_rgb_one_comes_back(
    bench: Any, images: Any, channels: int
) -> None:
    pictures, _ = bench.edit(images(1, 24, 32, channels))
    assert pictures.shape[0] == 1 and pictures.shape[3] == 3


def test_results_of_unequal_size_are_brought_to_the_first_ones_size_and_info_says_so(bench: Any, images: Any) -> None:
    shapes = ["1:1", "16:9", "1:1"]
    ids = [bench.submit(images(), aspect_ratio=shape, seed=n)[1][0] for n, shape in enumerate(shapes)]
    pictures, text, *_ = bench.run("KontextCollect", generation_ids="\n".join(ids))
    info = json.loads(text)
    assert pictures.shape == (3, 1024, 1024, 3)
    assert told(info, "resized") == [False, True, False]
    assert told(info, "size_returned")[1] != "1024x1024"
    assert "number 2 brought to 1024x1024" in info["note"]


def test_what_succeeded_is_kept_where_some_fail_and_only_the_failed_is_paid_for_again(serve: Any, images: Any) -> None:
    bench = serve(run_fails=Fault("the worker died", times=1))
    with pytest.raises(OxenError, match=r"1 of 3 edits failed\. Edit \d: .*the worker died.*The other 2 are kept"):
        bench.edit(images(3))
    _, info = bench.edit(images(3))
    assert sorted(told(info, "how")) == ["new", "reused", "reused"]
    assert told(info, "cost_usd") == [0.04] * 3 and info["cost_usd"] == 0.04, "the total is this run's"
    assert len(bench.paid) == 4


def test_a_run_that_reuses_all_its_pictures_says_that_it_cost_nothing(bench: Any, images: Any) -> None:
    bench.edit(images())
    assert bench.edit(images())[1]["cost_usd"] == 0.0


def test_a_failure_of_what_was_submitted_does_not_promise_that_collecting_makes_it_again(
    serve: Any, images: Any
) -> None:
    bench = serve(run_fails=Fault("the worker died", times=1))
    job, _ = bench.submit(images(3))
    with pytest.raises(OxenError, match=r"1 of 3 edits failed.*The other 2 are kept") as raised:
        bench.run("KontextCollect", job=[job])
    assert "run again" not in str(raised.value)
    assert "Kontext Edit or Kontext Submit" in str(raised.value) and "set if_some_fail" in str(raised.value)


def test_going_on_with_what_succeeded_names_what_failed(serve: Any, images: Any) -> None:
    bench = serve(run_fails=Fault("the worker died", times=1))
    pictures, info = bench.edit(images(3), if_some_fail="go on with what succeeded")
    assert pictures.shape[0] == len(info["edits"]) == 2
    assert len(info["failed"]) == 1 and "the worker died" in info["failed"][0]["error"]
    assert {info["failed"][0]["edit"], *told(info, "edit")} == {1, 2, 3}


def test_where_all_fail_there_is_nothing_to_go_on_with(serve: Any, images: Any) -> None:
    bench = serve(run_fails="the worker died")
    with pytest.raises(OxenError, match="2 edits failed"):
        bench.edit(images(2), if_some_fail="go on with what succeeded")


@pytest.mark.parametrize("wait", ["events and polling", "polling", "one blocking request"])
def test_every_way_to_wait_gives_the_same_picture(bench: Any, images: Any, wait: str) -> None:
    pictures, info = bench.edit(images(), wait=wait)
    assert told(info, "how") == ["new"] and pictures.shape[0] == 1
    assert bench.paid == (["edit"] if wait == "one blocking request" else ["enqueue"])


def test_an_uploaded_picture_gives_the_same_edit_as_one_inside_the_request(bench: Any, images: Any) -> None:
    inside, _ = bench.edit(images(), result="always new")
    uploaded, _ = bench.edit(images(), result="always new", send_as="Oxen upload")
    assert torch.equal(inside, uploaded)
    sent = [request.json["input_image"] for request in bench.server.requests if request.route == "enqueue"]
    assert sent[0].startswith("data:image/png;base64,") and sent[1].startswith(bench.server.url)


def test_the_variations_of_a_picture_share_one_upload(bench: Any, images: Any) -> None:
    bench.edit(images(2), variations=3, send_as="Oxen upload")
    sent = [request.json["input_image"] for request in bench.server.requests if request.route == "enqueue"]
    assert len(sent) == 6 and len(set(sent)) == 2


def test_progress_reaches_its_end_exactly_once_and_never_goes_back(serve: Any, images: Any) -> None:
    bench = serve()
    bench.server.hold()

    def release_when_told() -> None:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and not any("processing" in text for text in bench.heard.texts):
            time.sleep(0.01)
        bench.server.release()

    thread = threading.Thread(target=release_when_told)
    thread.start()
    bench.edit(images(3))
    thread.join()
    fractions = bench.heard.fractions
    assert fractions == sorted(fractions) and len(fractions) > 2
    assert [fraction for fraction in fractions if fraction >= 1.0] == [1.0]
    assert fractions[-1] == 1.0
    assert any("processing" in text for text in bench.heard.texts)
    assert "3 of 3 done" in bench.heard.texts[-1]


def test_progress_does_not_reach_its_end_where_the_edit_fails(serve: Any, images: Any) -> None:
    bench = serve(run_fails=True, timing=Timing(processing_s=0.4))
    with pytest.raises(OxenError):
        bench.edit(images())
    assert bench.heard.fractions and max(bench.heard.fractions) < 1.0
    assert "failed" in bench.heard.texts[-1]


@pytest.mark.parametrize("wait", ["events and polling", "polling"])
def test_cancel_ends_the_node_and_cancels_the_remote_jobs(serve: Any, images: Any, wait: str) -> None:
    bench = serve()
    bench.server.hold()

    def cancel() -> None:
        bench.server.wait_for(lambda s: len(s.jobs) == 2)
        host.request_interrupt()

    thread = threading.Thread(target=cancel)
    thread.start()
    with pytest.raises(RunInterrupted):
        bench.edit(images(2), wait=wait)
    thread.join()
    bench.server.wait_for(lambda s: all(job.status.value == "cancelled" for job in s.jobs.values()))


def test_a_node_that_is_cancelled_does_not_wait_for_a_service_that_does_not_answer(serve: Any, images: Any) -> None:
    bench = serve(cancel_never_answers=True)
    bench.server.hold()

    def cancel() -> None:
        bench.server.wait_for(lambda s: s.jobs)
        host.request_interrupt()

    thread = threading.Thread(target=cancel)
    thread.start()
    with pytest.raises(RunInterrupted):
        bench.edit(images())
    thread.join()
    still_waiting = [thread for thread in threading.enumerate() if thread.name == "kontext-bridge run"]
    assert still_waiting, "the node ended while its cleaning up still waits"
    bench.server.wait_for(lambda s: s.shown["cancel_never_answers"] == 1)


def test_what_was_submitted_is_collected_in_order_without_paying_again(bench: Any, images: Any) -> None:
    job, ids = bench.submit(images(3), seed=1)
    assert len(ids) == 3
    by_job, info, *_ = bench.run("KontextCollect", job=[job])
    assert told(json.loads(info), "seed") == [1, 2, 3]
    assert told(json.loads(info), "generation_id") == ids
    by_ids, *_ = bench.run("KontextCollect", generation_ids=f"{ids[2]}, {ids[0]}\n{ids[2]}")
    assert torch.equal(by_ids, by_job[[2, 0]])
    assert len(bench.paid) == 3


def test_a_job_and_ids_of_another_day_are_collected_together_each_once(bench: Any, images: Any) -> None:
    _, other = bench.submit(images(), seed=50)
    job, ids = bench.submit(images(2), seed=1)
    pictures, info, *_ = bench.run("KontextCollect", job=[job], generation_ids=f"{ids[0]}\n{other[0]}")
    assert told(json.loads(info), "generation_id") == [*ids, other[0]] and pictures.shape[0] == 3


def test_a_picture_of_one_blocking_request_is_collected_beside_ids_of_another_day(bench: Any, images: Any) -> None:
    _, other = bench.submit(images(), seed=50)
    bench.edit(images(), wait="one blocking request")
    job, ids = bench.submit(images())
    assert ids == []
    pictures, *_ = bench.run("KontextCollect", job=[job], generation_ids=other[0])
    assert pictures.shape[0] == 2 and len(bench.server.billed) == 2


def test_the_queue_lists_what_is_active_and_is_never_served_from_a_cache(bench: Any, images: Any) -> None:
    queue = bench.classes["KontextQueueStatus"]
    assert math.isnan(queue.fingerprint_inputs(generation_ids="x", job=None))
    assert bench.run("KontextQueueStatus")[0] == "Nothing is queued or processing."
    bench.server.hold()
    job, ids = bench.submit(images(), prompt="a hat\n" + "very " * 50, seed=3)
    table, text = bench.run("KontextQueueStatus")
    assert ids[0] in table and "a hat very" in table and len(table.splitlines()) == 1
    assert json.loads(text)[0]["seed"] == 3
    bench.server.finish(ids[0])
    table, text = bench.run("KontextQueueStatus", job=[job])
    assert "succeeded" in table
    assert "?" not in json.loads(text)[0]["result"] and "oxen_signature" not in table + text


def test_cancelling_says_of_each_job_what_became_of_it(bench: Any, images: Any) -> None:
    bench.server.hold()
    job, ids = bench.submit(images(2))
    bench.server.finish(ids[0])
    lines = bench.run("KontextCancel", job=[job])[0].splitlines()
    assert lines[0].startswith(f"{ids[0]}: finished before") and lines[1] == f"{ids[1]}: cancelled"
    assert bench.server.jobs[ids[1]].status.value == "cancelled"


def test_only_nodes_that_may_differ_from_run_to_run_change_their_fingerprint(bench: Any) -> None:
    for node in ("KontextEdit", "KontextSubmit"):
        prints = bench.classes[node].fingerprint_inputs
        assert prints(result="reuse", seed=1) == prints(result="reuse", seed=1)
        time.sleep(0.001)
        assert prints(result="always new") != prints(result="always new")
        # ComfyUI tells None of what comes over a link, so that it may be "always new"
        assert prints(result=None) != prints(result=None) and prints() == prints()
    for node in ("KontextCancel", "KontextHistory"):
        assert math.isnan(bench.classes[node].fingerprint_inputs())


def test_what_a_collect_went_on_without_is_asked_for_by_the_next_run_and_not_kept_from_it_by_a_cache(
    bench: Any, images: Any
) -> None:
    node = bench.classes["KontextCollect"].PREPARE_CLASS_CLONE({"hidden_inputs": {"UNIQUE_ID": "node"}})
    bench.server.hold()
    _, ids = bench.submit(images(2))
    bench.server.finish(ids[0])
    given = {"generation_ids": "\n".join(ids), "if_some_fail": "go on with what succeeded", "wait": "polling"}
    before = node.fingerprint_inputs(**given)
    pictures, info, *_ = bench.run("KontextCollect", timeout=[0.3], **given)
    assert pictures.shape[0] == 1 and "run again" in json.loads(info)["failed"][0]["error"]
    after = node.fingerprint_inputs(**given)
    assert after != before
    bench.server.finish(ids[1])
    pictures, *_ = bench.run("KontextCollect", **given)
    assert pictures.shape[0] == 2 and node.fingerprint_inputs(**given) == after, "and from here on the cache may"


@pytest.mark.parametrize("type", ["KontextEdit", "OxenEdit"])
def test_a_paid_edit_that_was_gone_on_without_is_brought_by_the_next_run_and_not_kept_from_it_by_a_cache(
    bench: Any, images: Any, type: str
) -> None:
    node = bench.classes[type].PREPARE_CLASS_CLONE({"hidden_inputs": {"UNIQUE_ID": "node"}})
    bench.server.hold()
    _, ids = bench.submit(images(2), output_format="png")
    bench.server.finish(ids[0])
    given = {"image": images(2), "prompt": "a hat", "if_some_fail": "go on with what succeeded", "wait": "polling"}
    before = node.fingerprint_inputs(result="reuse")
    pictures, *_ = bench.run(type, timeout=[0.3], **given)
    after = node.fingerprint_inputs(result="reuse")
    assert pictures.shape[0] == 1 and after != before
    bench.server.finish(ids[1])
    pictures, *_ = bench.run(type, **given)
    assert pictures.shape[0] == 2 and node.fingerprint_inputs(result="reuse") == after and len(bench.paid) == 2


def test_what_an_edit_failed_of_is_not_made_and_paid_anew_by_the_next_run(serve: Any, images: Any) -> None:
    bench = serve(run_fails=Fault("the worker died", times=1))
    node = bench.classes["KontextEdit"].PREPARE_CLASS_CLONE({"hidden_inputs": {"UNIQUE_ID": "node"}})
    before = node.fingerprint_inputs(result="reuse")
    bench.edit(images(2), if_some_fail="go on with what succeeded")
    assert node.fingerprint_inputs(result="reuse") == before, "as errors.md says: a widget is changed for that"


def test_what_can_never_be_collected_does_not_keep_a_collect_from_its_cache(serve: Any, images: Any) -> None:
    bench = serve(run_fails=Fault("the worker died", times=1))
    node = bench.classes["KontextCollect"].PREPARE_CLASS_CLONE({"hidden_inputs": {"UNIQUE_ID": "node"}})
    job, _ = bench.submit(images(2))
    before = node.fingerprint_inputs()
    pictures, *_ = bench.run("KontextCollect", job=[job], if_some_fail="go on with what succeeded")
    assert pictures.shape[0] == 1 and node.fingerprint_inputs() == before


def test_the_model_is_described_without_a_key(bench: Any, monkeypatch: Any) -> None:
    monkeypatch.delenv("OXEN_API_KEY")
    schema, price, description = bench.run("KontextModelInfo")
    assert json.loads(schema)["required"] == ["prompt", "input_image"]
    assert price == "0.04 USD per image" and description


@pytest.mark.parametrize("fault", [{"json_request_schema": True}, {"price_missing": True}], ids=str)
def test_a_model_is_described_under_the_other_schema_name_and_without_a_price(
    serve: Any, fault: dict[str, Any]
) -> None:
    schema, price, _ = serve(**fault).run("KontextModelInfo")
    assert json.loads(schema)["properties"]
    assert price == ("not published" if "price_missing" in fault else "0.04 USD per image")


def test_the_history_lists_what_was_paid_for_and_brings_a_picture_back(bench: Any, images: Any) -> None:
    pictures, _ = bench.edit(images(), prompt="the older one")
    bench.edit(images(), prompt="the newer one")
    back, table, text, *_ = bench.run("KontextHistory", pick=2)
    assert torch.equal(back, pictures) and len(bench.paid) == 2
    assert [line.split()[-2] for line in table.splitlines()[1:]] == ["newer", "older"], "after the total"
    assert json.loads(text)["count"] == 2 and json.loads(text)["total_usd"] == 0.08
    found, table, *_ = bench.run("KontextHistory", search="older")
    assert torch.equal(found, pictures) and len(table.splitlines()) == 2
    nothing = bench.result("KontextHistory", search="nothing like it")
    assert nothing.nodes["node"].texts["table"].splitlines()[1].startswith("No edit has 'nothing like it' in its")
    assert "2 edits in all, $0.08" in nothing.nodes["node"].texts["table"]
    assert "no picture with 'nothing like it'" in nothing.blocked["node"]


def test_a_history_without_anything_still_gives_its_table_and_blocks_the_picture_alone(bench: Any) -> None:
    result = bench.result("KontextHistory")
    assert result.nodes["node"].texts["table"] == "Nothing was made on this machine yet."
    assert json.loads(result.nodes["node"].texts["json"]) == {"edits": [], "count": 0, "total_usd": 0.0}
    assert "no picture yet" in result.blocked["node"] and result.nodes["out"].outputs == [[Blocked(None)]]

    alone = {"1": {"class_type": "KontextHistory", "inputs": bench.defaults("KontextHistory")}}
    folders = RunFolders(source=bench.folder, output=bench.folder / "output")
    assert run_workflow(alone, bench.classes.values(), folders).blocked == {}, "nothing uses the picture"


def test_a_number_that_the_history_lacks_is_told_beside_the_table(bench: Any, images: Any) -> None:
    bench.edit(images())
    result = bench.result("KontextHistory", pick=2)
    assert "has 1 picture, so there is no number 2" in result.blocked["node"]
    assert result.nodes["node"].texts["table"].startswith("1 edit in all, $0.04")


def test_a_picture_that_is_gone_for_good_leaves_the_table_and_says_how_to_make_it_again(
    bench: Any, images: Any, home: Any
) -> None:
    bench.edit(images())
    for file in (home / "results").iterdir():
        file.unlink()
    bench.server.set(result_missing=True)
    result = bench.result("KontextHistory")
    assert "a hat" in result.nodes["node"].texts["table"] and result.nodes["out"].outputs == [[Blocked(None)]]
    assert "with Kontext Edit" in result.blocked["node"] and "always new" not in result.blocked["node"]


def test_a_picture_that_cannot_be_fetched_now_leaves_the_table_and_says_why(bench: Any, images: Any) -> None:
    bench.submit(images())
    bench.server.set(poll_unauthorized=True)
    result = bench.result("KontextHistory")
    assert "a hat" in result.nodes["node"].texts["table"]
    assert "does not accept the API key" in result.blocked["node"]


def test_a_refused_edit_is_listed_as_not_billed(serve: Any, images: Any) -> None:
    bench = serve(out_of_credits=True)
    with pytest.raises(OxenError):
        bench.edit(images())
    table = bench.result("KontextHistory").nodes["node"].texts["table"]
    assert "refused" in table and "not billed" in table and "cost unknown" not in table


def test_two_nodes_with_the_same_request_in_one_run_pay_once(serve: Any, images: Any) -> None:
    bench = serve(timing=SLOW)
    outcomes: list[Any] = []
    threads = [threading.Thread(target=lambda: outcomes.append(_direct(bench, images()))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(itertools.chain(*(told(info, "how") for info in outcomes))) == ["new", "reused"]
    assert len(bench.paid) == 1


def _direct(bench: Any, image: torch.Tensor) -> dict[str, Any]:
    widgets = {**bench.defaults("KontextEdit"), "prompt": "a hat", "output_format": "jpg"}
    node = bench.classes["KontextEdit"].PREPARE_CLASS_CLONE({"hidden_inputs": {"UNIQUE_ID": "1"}})
    return json.loads(asyncio.run(node.execute(image=image, **widgets)).result[1])


@pytest.mark.parametrize("ending", ["cancelled", "out of credits", "gone"])
def test_collecting_does_not_promise_what_only_editing_can_do(
    serve: Any, images: Any, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finishing, "_LATE_SECONDS", 1.0)
    bench = serve(**({"run_out_of_credits": True} if ending == "out of credits" else {}))
    bench.server.hold()
    job, ids = bench.submit(images())
    if ending == "cancelled":
        bench.run("KontextCancel", job=[job])
    bench.server.release()
    bench.server.set(result_missing=ending == "gone")
    for _ in range(2):
        with pytest.raises(OxenError, match=f"use Kontext Edit or Kontext Submit.* Generation {ids[0]}.$") as raised:
            bench.run("KontextCollect", job=[job])
        said = str(raised.value)
        assert "always new" not in said
        assert "un again" not in said or (ending == "gone" and "Run again to try once more." in said)


def test_old_results_are_removed_without_holding_up_what_came(
    bench: Any, images: Any, home: Any, monkeypatch: Any
) -> None:
    def prune(*_: Any, **__: Any) -> int:
        pruning.set()
        assert over.wait(20)
        return 0

    pruning, over = threading.Event(), threading.Event()
    monkeypatch.setattr(Ledger, "prune", prune)
    bench.edit(images())
    assert pruning.wait(5) and not over.is_set(), "the picture is here and the removing still goes on"
    bench.edit(images(), seed=2)
    over.set()
    for thread in threading.enumerate():
        if thread.name == "kontext-bridge prune":
            thread.join()


def test_a_run_of_nodes_removes_old_results_by_itself(bench: Any, images: Any, home: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("KONTEXT_BRIDGE_KEEP_DAYS", "1")
    with contextlib.closing(Ledger(home)) as ledger:
        old = ledger.collected(ledger.done(ledger.adopt("old"), b"x" * 100, "png"))
        ledger._update(old, collected_at=time.time() - 90000)
    bench.edit(images())
    end = time.monotonic() + 10
    while any((home / "results").glob("1-*")) and time.monotonic() < end:
        time.sleep(0.02)
    assert len(list((home / "results").iterdir())) == 1


@pytest.mark.parametrize("node", ["KontextEdit", "KontextSubmit"])
def test_a_workflow_file_with_only_a_picture_and_a_prompt_runs(bench: Any, images: Any, node: str) -> None:
    whole = bench.defaults(node)
    assert len(whole) > 10
    bench.defaults = lambda _: {}
    bench.run(node, image=images(), prompt="a hat")
    bench.defaults = lambda _: whole
    bench.run(node, image=images(), prompt="a hat")
    assert len(bench.paid) == 1, "what was left out is as it would stand in the widgets"
