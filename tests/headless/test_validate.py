from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cases import REFUSED, echo, node
from kontext_bridge.headless.graph import WorkflowError, parse_workflow, read_workflow
from kontext_bridge.headless.outputs import RunResult

Run = Callable[..., RunResult]


@pytest.mark.parametrize("case", REFUSED)
def test_what_comfyui_refuses_is_refused_before_anything_runs(case: str, run: Run) -> None:
    workflow, kinds = REFUSED[case]
    with pytest.raises(WorkflowError) as refused:
        run(workflow)
    assert {problem.kind for problem in refused.value.problems} == kinds


def test_a_refusal_names_the_node_the_input_and_the_limit(run: Run) -> None:
    with pytest.raises(WorkflowError, match=r"^Node 7 \(SampleEcho\): steps: 60 is above .* 50\.$"):
        run({"7": echo(steps=60)})


def test_a_message_of_the_node_is_said_once_and_not_once_for_each_argument(run: Run) -> None:
    with pytest.raises(WorkflowError) as refused:
        run({"1": node("SampleChecked", small=1, own=1, text="")})
    assert str(refused.value) == "Node 1 (SampleChecked): no text"


def test_a_link_from_a_node_that_is_not_there_is_named(run: Run) -> None:
    with pytest.raises(WorkflowError, match="text is linked from node 9, which is not in the workflow"):
        run({"1": echo(text=["9", 0])})


def test_a_link_from_an_output_that_is_not_there_is_named(run: Run) -> None:
    with pytest.raises(WorkflowError, match="output 5 of node 1"):
        run({"1": node("SampleList", words="a"), "2": echo(text=["1", 5])})


def test_a_link_to_an_input_that_is_not_there_names_those_that_are(run: Run) -> None:
    with pytest.raises(WorkflowError, match=r'no input "words".*It has: text, steps'):
        run({"1": node("SampleList", words="a"), "2": echo(words=["1", 0])})


def test_one_output_node_in_order_does_not_run_when_another_is_not(run: Run, folders: Any) -> None:
    picture = node("EmptyImage", width=8, height=8, batch_size=1, color=0)
    with pytest.raises(WorkflowError, match="steps"):
        run({"1": picture, "2": node("SaveImage", images=["1", 0]), "3": echo(steps=99)})
    assert not folders.output.exists()


def test_a_node_that_leads_to_no_output_is_not_checked(run: Run) -> None:
    result = run({"1": echo(), "2": node("SampleList", words=["9", 9])})
    assert list(result.nodes) == ["1"]


def test_the_document_that_was_given_stays_as_it_was() -> None:
    document = {"1": echo(steps="5")}
    parse_workflow(document).nodes["1"].inputs["steps"] = 7
    assert document == {"1": echo(steps="5")}


def test_an_editor_workflow_is_refused_with_the_way_to_export_it() -> None:
    with pytest.raises(WorkflowError, match=r"Export \(API\)"):
        parse_workflow({"nodes": [], "links": [], "version": 0.4})


@pytest.mark.parametrize("document", [[], {}, None, "text"])
def test_a_document_without_nodes_is_refused(document: object) -> None:
    with pytest.raises(WorkflowError, match="holds no nodes"):
        parse_workflow(document)


@pytest.mark.parametrize("entry", [5, {}, {"class_type": 3}, {"class_type": "A", "inputs": []}])
def test_an_entry_that_is_no_node_is_named(entry: object) -> None:
    with pytest.raises(WorkflowError, match="Node 4 is not a node"):
        parse_workflow({"4": entry})


def test_a_file_that_is_not_json_or_not_there_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    with pytest.raises(WorkflowError, match=r"broken\.json is not JSON"):
        read_workflow(broken)
    with pytest.raises(WorkflowError, match=r"missing\.json cannot be read"):
        read_workflow(tmp_path / "missing.json")


@pytest.mark.parametrize("value", [None, {"a": 1}, {"__value__": ["a"]}, {"__value__": None}], ids=str)
def test_what_is_no_text_is_not_paid_for_as_one(value: Any, run: Callable[..., RunResult]) -> None:
    with pytest.raises(WorkflowError, match=r"text: .* is not a value of type STRING"):
        run({"1": echo(text=value)})


def test_a_workflow_nested_without_end_is_told_in_words(tmp_path: Path) -> None:
    (tmp_path / "workflow.json").write_text("[" * 200_000)
    with pytest.raises(WorkflowError, match="nested too deeply"):
        read_workflow(tmp_path / "workflow.json")
