from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from cases import RUNS, echo, node
from comfy_api.latest import io
from kontext_bridge.headless.folders import RunFolders
from kontext_bridge.headless.outputs import RunResult
from kontext_bridge.headless.run import NodeFailed, RunInterrupted, run_workflow
from kontext_bridge.headless.told import Report

Run = Callable[..., RunResult]
FAILSAFE_S = 20


def output_node(name: str, execute: Callable[..., Any], inputs: list[io.Input] | None = None) -> type[io.ComfyNode]:
    def define_schema(cls: type[io.ComfyNode]) -> io.Schema:
        return io.Schema(
            node_id=name,
            is_output_node=True,
            inputs=list(inputs or [io.Int.Input("n", default=0, optional=True)]),
            outputs=[io.String.Output(display_name="said")],
            hidden=[io.Hidden.unique_id],
        )

    methods = {"define_schema": classmethod(define_schema), "execute": classmethod(execute)}
    return type(name, (io.ComfyNode,), methods)


@pytest.mark.parametrize("case", RUNS)
def test_a_node_is_given_and_shows_what_it_is_in_comfyui(case: str, run: Run) -> None:
    workflow, texts = RUNS[case]
    result = run(workflow)
    shown = {id: one.ui["text"] for id, one in result.nodes.items() if "text" in one.ui}
    assert shown == texts


def test_nodes_that_wait_do_so_side_by_side(folders: RunFolders) -> None:
    arrived: set[str] = set()

    async def everyone() -> None:
        while len(arrived) < 3:
            await asyncio.sleep(0.001)

    async def meet(cls: type[io.ComfyNode], n: int = 0) -> io.NodeOutput:
        arrived.add(str(cls.hidden.unique_id))
        await asyncio.wait_for(everyone(), FAILSAFE_S)
        return io.NodeOutput("met")

    result = run_workflow({id: node("Meet") for id in "abc"}, [output_node("Meet", meet)], folders)
    assert set(result.nodes) == {"a", "b", "c"}


def test_a_node_starts_as_soon_as_its_own_source_is_through(folders: RunFolders) -> None:
    reached = asyncio.Event()

    async def wait(cls: type[io.ComfyNode], n: int = 0) -> io.NodeOutput:
        await asyncio.wait_for(reached.wait(), FAILSAFE_S)
        return io.NodeOutput("waited")

    async def first(cls: type[io.ComfyNode], n: int = 0) -> io.NodeOutput:
        await asyncio.sleep(0.001)
        return io.NodeOutput("first")

    def follow(cls: type[io.ComfyNode], text: str) -> io.NodeOutput:
        reached.set()
        return io.NodeOutput(text)

    nodes = [
        output_node("Wait", wait),
        output_node("First", first),
        output_node("Follow", follow, [io.String.Input("text")]),
    ]
    workflow = {"1": node("Wait"), "2": node("First"), "3": node("Follow", text=["2", 0])}
    assert list(run_workflow(workflow, nodes, folders).nodes) == ["2", "3", "1"]


def test_a_failing_node_cancels_those_that_still_wait(folders: RunFolders) -> None:
    ended: list[str] = []

    async def wait(cls: type[io.ComfyNode], n: int = 0) -> io.NodeOutput:
        try:
            await asyncio.sleep(FAILSAFE_S)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise
        finally:
            await asyncio.sleep(0)
            ended.append("cleaned up")
        return io.NodeOutput("never")

    async def fail(cls: type[io.ComfyNode], n: int = 0) -> io.NodeOutput:
        await asyncio.sleep(0.001)
        raise ValueError("out of credits")

    nodes = [output_node("Wait", wait), output_node("Fail", fail)]
    with pytest.raises(NodeFailed, match=r"^Node 2 \(Fail\): out of credits$") as failed:
        run_workflow({"1": node("Wait"), "2": node("Fail")}, nodes, folders)
    assert isinstance(failed.value.error, ValueError)
    assert ended == ["cancelled", "cleaned up"]


def test_an_element_of_a_list_that_fails_lets_the_others_finish_first(folders: RunFolders, sample_pack: Any) -> None:
    finished: list[str] = []

    async def one(cls: type[io.ComfyNode], text: str) -> io.NodeOutput:
        await asyncio.sleep(0.001 if text == "bad" else 0.02)
        if text == "bad":
            raise ValueError("bad element")
        finished.append(text)
        return io.NodeOutput(text)

    nodes = [*sample_pack.NODES, output_node("One", one, [io.String.Input("text")])]
    workflow = {"1": node("SampleList", words="a bad c"), "2": node("One", text=["1", 0])}
    with pytest.raises(NodeFailed, match="bad element"):
        run_workflow(workflow, nodes, folders)
    assert finished == ["a", "c"]


def test_an_interruption_is_told_from_a_failure(folders: RunFolders) -> None:
    class Interruption(BaseException):
        pass

    async def stop(cls: type[io.ComfyNode], n: int = 0) -> io.NodeOutput:
        await asyncio.sleep(0.001)
        raise Interruption

    with pytest.raises(RunInterrupted, match=r"in node 1 \(Stop\)"):
        run_workflow({"1": node("Stop")}, [output_node("Stop", stop)], folders)


def test_no_further_node_starts_after_an_interruption(run: Run) -> None:
    answers = iter([False, True])
    started: list[str] = []

    class Heard(Report):
        def started(self, node_id: str, class_type: str) -> None:
            started.append(node_id)

    with pytest.raises(RunInterrupted):
        run({"1": echo(), "2": echo(), "3": echo()}, interrupted=lambda: next(answers), report=Heard())
    assert started == ["1"]


def test_hidden_values_do_not_stay_on_the_class(run: Run, sample_pack: Any) -> None:
    run({"5": echo()})
    assert sample_pack.SampleEcho.hidden is None


def test_too_few_values_are_an_error_of_the_node_that_gave_them(folders: RunFolders) -> None:
    def two(cls: type[io.ComfyNode], n: int = 0) -> io.NodeOutput:
        return io.NodeOutput("one", "two")

    with pytest.raises(NodeFailed, match=r"Node 1 \(Two\): It gave 2 values but declares 1 outputs"):
        run_workflow({"1": node("Two")}, [output_node("Two", two)], folders)


def test_a_block_without_placeholders_is_refused_since_comfyui_fails_on_it(folders: RunFolders) -> None:
    def block(cls: type[io.ComfyNode], n: int = 0) -> io.NodeOutput:
        return io.NodeOutput(block_execution="stop")

    with pytest.raises(NodeFailed, match="It gave 0 values but declares 1 outputs"):
        run_workflow({"1": node("Block")}, [output_node("Block", block)], folders)


def test_a_linked_output_that_was_not_given_is_an_error_and_not_none(folders: RunFolders) -> None:
    def none(cls: type[io.ComfyNode], n: int = 0) -> None:
        return None

    nodes = [output_node("Nothing", none), output_node("Take", lambda cls, text: (text,), [io.String.Input("text")])]
    with pytest.raises(NodeFailed, match="Node 1 gave 0 values"):
        run_workflow({"1": node("Nothing"), "2": node("Take", text=["1", 0])}, nodes, folders)


@pytest.mark.parametrize("returned", ["text", 5, ["list"]])
def test_what_is_no_node_output_is_refused(returned: object, folders: RunFolders) -> None:
    with pytest.raises(NodeFailed, match="Invalid return type"):
        run_workflow({"1": node("Odd")}, [output_node("Odd", lambda cls, n=0: returned)], folders)


def test_a_blocked_branch_is_reported_with_the_reason_and_the_rest_runs(run: Run) -> None:
    workflow, _ = RUNS["a node that blocks what follows"]
    assert run(workflow).blocked == {"1": "stop"}


def test_an_empty_list_into_a_node_names_the_input(run: Run) -> None:
    with pytest.raises(NodeFailed, match="linked to text is empty"):
        run({"1": node("SampleList", words=""), "2": echo(text=["1", 0])})


def test_a_source_shared_by_two_nodes_runs_once(folders: RunFolders) -> None:
    calls: list[int] = []

    def source(cls: type[io.ComfyNode], n: int = 0) -> io.NodeOutput:
        calls.append(n)
        return io.NodeOutput("once")

    nodes = [output_node("Source", source), output_node("Take", lambda cls, text: (text,), [io.String.Input("text")])]
    workflow = {"1": node("Source"), "2": node("Take", text=["1", 0]), "3": node("Take", text=["1", 0])}
    assert run_workflow(workflow, nodes, folders).nodes["3"].texts == {"said": "once"}
    assert calls == [0]


def test_nodes_run_on_one_thread_without_gradients(folders: RunFolders) -> None:
    seen: list[tuple[int, bool]] = []

    async def look(cls: type[io.ComfyNode], n: int = 0) -> io.NodeOutput:
        await asyncio.sleep(0)
        seen.append((threading.get_ident(), torch.is_inference_mode_enabled()))
        return io.NodeOutput("seen")

    run_workflow({"1": node("Look"), "2": node("Look")}, [output_node("Look", look)], folders)
    assert seen == [(threading.get_ident(), True)] * 2
