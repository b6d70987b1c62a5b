from __future__ import annotations

import asyncio
import copy
import json
from pathlib import Path
from typing import Any

import pytest
from kontext_bridge import comfy_entrypoint
from schema import broken, snapshot

SAVED = json.loads(Path(__file__).with_name("schema.json").read_text(encoding="utf-8"))
NOW = snapshot()


def test_no_change_breaks_a_saved_workflow() -> None:
    assert broken(SAVED, NOW) == []


def test_what_is_new_is_written_down_for_the_next_change() -> None:
    assert NOW == SAVED, "review the difference that `make generated` writes"


def _changed(change: Any) -> dict[str, Any]:
    now = copy.deepcopy(SAVED)
    change(now)
    return now


def own(now: dict[str, Any]) -> dict[str, str]:
    """The models of Edit Picture, each with its own inputs."""
    choices: dict[str, str] = now["OxenEdit"]["inputs"][-1][3]["options"]
    return choices


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda now: now.pop("KontextEdit"), "KontextEdit: the node is gone"),
        (lambda now: now["KontextEdit"]["inputs"].pop(3), "KontextEdit: inputs were"),
        (lambda now: now["KontextEdit"]["inputs"].insert(2, ["required", "new", "INT", {}]), "by position"),
        (lambda now: now["KontextEdit"]["inputs"].reverse(), "by position"),
        (lambda now: now["KontextEdit"]["inputs"][3][3].update(max=40), r"KontextEdit\.steps: was"),
        (lambda now: now["KontextEdit"]["inputs"][2][3]["options"].remove("1:1"), r"KontextEdit\.aspect_ratio: was"),
        (lambda now: now["KontextEdit"]["outputs"].reverse(), "KontextEdit: outputs were"),
        (lambda now: now["KontextEdit"]["inputs"][-1].__setitem__(0, "required"), r"KontextEdit\.keep: was"),
        (lambda now: own(now).pop("gpt-image-2"), r"OxenEdit\.model\.gpt-image-2: its own inputs were"),
        (lambda now: own(now).pop("flux-deblur"), r"OxenEdit\.model\.flux-deblur: its own inputs were ''"),
        (
            lambda now: own(now).update({"gpt-image-2": "new " + own(now)["gpt-image-2"]}),
            r"OxenEdit\.model\.gpt-image-2",
        ),
    ],
)
def test_a_change_that_breaks_saved_workflows_is_told_with_the_node_and_what_broke(change: Any, words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        assert broken(SAVED, _changed(change)) == []


def test_an_input_or_output_that_is_appended_breaks_nothing() -> None:
    def append(now: Any) -> None:
        now["KontextEdit"]["inputs"].append(["required", "new", "INT", {"default": 0}])
        now["KontextEdit"]["outputs"].append(["MASK", "mask"])
        now["KontextEdit"]["inputs"][5][0] = "optional"
        own(now)["gpt-image-2"] += " more"
        own(now)["another"] = "prompt"

    assert broken(SAVED, _changed(append)) == []


def test_what_is_folded_away_may_change_and_is_written_down() -> None:
    def fold(now: Any) -> None:
        now["KontextEdit"]["inputs"][3][3]["advanced"] = True

    assert broken(SAVED, changed := _changed(fold)) == []
    assert changed != SAVED


@pytest.mark.parametrize("node", ["KontextEdit", "KontextEditLocal"])
def test_six_widgets_of_an_edit_show_and_the_rest_is_folded_away(node: str) -> None:
    widgets = [one for one in SAVED[node]["inputs"] if one[2] in {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}]
    shown = [one[1] for one in widgets if not one[3].get("advanced")]
    assert shown == ["prompt", "aspect_ratio", "steps", "guidance", "seed", "keep"]


@pytest.fixture(scope="module")
def schemas() -> dict[str, Any]:
    async def classes() -> Any:
        return await (await comfy_entrypoint()).get_node_list()

    return {node.GET_SCHEMA().node_id: node.GET_SCHEMA() for node in asyncio.run(classes())}


def test_every_input_and_output_has_a_tooltip_that_says_more_than_its_name(schemas: dict[str, Any]) -> None:
    named = [(node, one) for node, schema in schemas.items() for one in (*schema.inputs, *schema.outputs)]
    dull = [f"{node}.{one.id or one.display_name}" for node, one in named if len((one.tooltip or "").split()) < 3]
    assert dull == []


def test_every_node_has_the_packs_prefix_a_name_and_a_description(schemas: dict[str, Any]) -> None:
    for node, schema in schemas.items():
        assert node.startswith(("Kontext", "Oxen")) and schema.display_name and schema.description, node
        assert schema.category.split("/")[0] == "Kontext Bridge", node


def test_no_widget_is_a_place_for_a_key_or_a_host(schemas: dict[str, Any]) -> None:
    ids = {one.id.lower() for schema in schemas.values() for one in schema.inputs}
    assert not [one for one in ids if any(word in one for word in ("key", "token", "secret", "password", "base_url"))]


@pytest.mark.parametrize("node", ["KontextEdit", "KontextSubmit", "KontextEditLocal", "OxenEdit", "OxenSubmit"])
def test_a_file_needs_no_more_than_the_picture_the_prompt_and_the_models(node: str) -> None:
    needed = {one[1] for one in SAVED[node]["inputs"] if one[0] == "required"}
    assert needed <= {"image", "prompt", "model", "clip", "vae"} and "image" in needed


def test_no_seed_of_a_paid_node_changes_by_itself(schemas: dict[str, Any]) -> None:
    for node in ("KontextEdit", "KontextSubmit", "KontextEditFolder"):
        (seed,) = (one for one in SAVED[node]["inputs"] if one[1] == "seed")
        assert seed[3]["control_after_generate"] == "fixed"


def test_the_folder_node_asks_for_what_the_edit_node_asks_for() -> None:
    edit, folder = ({one[1]: one[2:] for one in SAVED[node]["inputs"]} for node in ("KontextEdit", "KontextEditFolder"))
    # pictures come from a folder; a folder that was made is never made anew, and ends well where some fail
    assert set(edit) - set(folder) == {"image", "result", "if_some_fail"}
    assert all(folder[name] == edit[name] for name in set(edit) & set(folder))


def test_both_remote_edit_nodes_begin_with_the_same_widgets_in_the_same_order() -> None:
    edit, submit = (SAVED[node]["inputs"] for node in ("KontextEdit", "KontextSubmit"))
    without = [one for one in edit if one[1] not in {"wait", "timeout", "keep"}]
    assert submit == without


def test_the_local_edit_node_goes_on_after_its_models_as_the_remote_one_begins() -> None:
    remote, local = (SAVED[node]["inputs"] for node in ("KontextEdit", "KontextEditLocal"))
    assert [one[1] for one in local[:3]] == ["model", "clip", "vae"]
    assert local[3:-1] == remote[: len(local) - 4]
    assert local[-1] == remote[-1] and local[-1][1] == "keep", "optional, so that files saved before it load"
