from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
from cases import echo, node
from kontext_bridge.headless.changes import SettingError, apply_setting
from kontext_bridge.headless.graph import parse_workflow
from kontext_bridge.headless.run import node_table


@pytest.mark.parametrize(
    ("setting", "name", "value"),
    [
        ("1.text=make it=blue", "text", "make it=blue"),
        ("1.text=1e3", "text", "1e3"),
        ('1.text="quoted"', "text", "quoted"),
        ("1.text=", "text", ""),
        ("1.text={}", "text", "{}"),
        ("1.steps=7", "steps", 7),
        ("1.shape=16:9", "shape", "16:9"),
        ("1.count=3", "count", 3),
        ("1.loud=false", "loud", False),
        ('1.text=["2", 0]', "text", ["2", 0]),
    ],
)
def test_a_value_becomes_what_its_input_takes(setting: str, name: str, value: Any, sample_pack: ModuleType) -> None:
    workflow = parse_workflow({"1": echo(), "2": node("SampleList", words="a")})
    apply_setting(workflow, node_table(sample_pack.NODES), setting)
    assert workflow.nodes["1"].inputs[name] == value
    assert workflow.prompt["1"]["inputs"][name] == value


def test_a_socket_of_a_growing_input_can_be_set(sample_pack: ModuleType) -> None:
    workflow = parse_workflow({"1": node("SampleRefs")})
    apply_setting(workflow, node_table(sample_pack.NODES), "1.refs.ref_1=x")
    assert workflow.nodes["1"].inputs == {"refs.ref_1": "x"}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("9.text=x", r"no node 9\. It has: 1 \(SampleEcho\)\."),
        ("1.prompt=x", r"SampleEcho has no input prompt\. It has: text, steps,"),
        ("1.text", "write it as NODE.INPUT=VALUE"),
        ("text=1.5", "write it as NODE.INPUT=VALUE"),
    ],
)
def test_a_setting_that_hits_nothing_names_what_there_is(setting: str, message: str, sample_pack: ModuleType) -> None:
    with pytest.raises(SettingError, match=message):
        apply_setting(parse_workflow({"1": echo()}), node_table(sample_pack.NODES), setting)


def test_a_value_for_an_input_that_a_link_feeds_names_what_to_set_instead(sample_pack: ModuleType) -> None:
    classes = node_table(sample_pack.NODES)
    workflow = parse_workflow(
        {
            "1": node("EmptyImage", width=8, height=8),
            "2": node("SaveImage", images=["1", 0]),
            "3": node("SampleList", words="a"),
            "4": echo(text=["3", 0]),
        }
    )
    with pytest.raises(
        SettingError, match=r"images is fed by a link from node 1 \(EmptyImage\)\. Set 1\.width or 1\.h"
    ):
        apply_setting(workflow, classes, "2.images=x.png")
    apply_setting(workflow, classes, '2.images=["3", 0]')
    assert workflow.nodes["2"].inputs["images"] == ["3", 0]
    apply_setting(workflow, classes, "4.text=a value of its own")
    assert workflow.nodes["4"].inputs["text"] == "a value of its own", "what is also a widget can be set"
