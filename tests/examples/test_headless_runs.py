"""Every example workflow, run without ComfyUI against the stand-in."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from kontext_bridge.headless.folders import RunFolders
from kontext_bridge.headless.graph import read_workflow
from kontext_bridge.headless.outputs import RunResult
from kontext_bridge.headless.run import run_workflow
from kontext_bridge.standin import StandIn
from pack import NODES, TWINS, WORKFLOWS
from PIL import Image, ImageFilter


def run(name: str, output: Path) -> RunResult:
    return run_workflow(read_workflow(TWINS / f"{name}.json"), NODES, RunFolders(source=WORKFLOWS, output=output))


def test_a_remote_edit_that_saves_no_picture_or_pays_twice_is_noticed(service: StandIn, tmp_path: Path) -> None:
    first, again = run("remote_edit", tmp_path / "a"), run("remote_edit", tmp_path / "b")
    (one,), (other,) = first.nodes["3"].files, again.nodes["3"].files
    assert np.array_equal(pixels(one), pixels(other))
    assert pixels(one).shape == (880, 1184, 3), "match_input_image keeps 4:3"
    assert len(service.billed) == 1
    (edit,) = json.loads(first.nodes["2"].texts["info"])["edits"]
    assert (edit["seed"], edit["generation_id"]) == (0, next(iter(service.jobs)))


def test_a_submitted_job_that_is_not_the_one_collected_is_noticed(service: StandIn, tmp_path: Path) -> None:
    result = run("submit_and_collect", tmp_path)
    (generation_id,) = service.jobs
    assert result.nodes["2"].texts["generation_ids"] == generation_id
    assert generation_id in result.nodes["3"].texts["table"]
    assert json.loads(result.nodes["4"].texts["info"])["edits"][0]["generation_id"] == generation_id
    assert len(result.nodes["5"].files) == 1
    assert len(service.billed) == 1


def test_a_batch_of_which_only_the_first_picture_is_edited_is_noticed(service: StandIn, tmp_path: Path) -> None:
    result = run("batch_edit", tmp_path)
    assert [len(result.nodes[id].files) for id in ("3", "5")] == [3, 3]
    assert len(service.billed) == 6
    for id in ("2", "4"):
        edits = json.loads(result.nodes[id].texts["info"])["edits"]
        assert [edit["seed"] for edit in edits] == [0, 1, 2]
    saved = [pixels(path) for path in result.nodes["5"].files]
    assert not any(np.array_equal(saved[0], other) for other in saved[1:])


def test_a_folder_of_which_a_picture_has_no_result_of_its_name_is_noticed(service: StandIn, tmp_path: Path) -> None:
    result = run("folder_edit", tmp_path)
    names = [path.name for path in (WORKFLOWS / "kontext_example_folder").iterdir()]
    assert sorted(path.name for path in (tmp_path / "kontext_example_folder").glob("*.png")) == sorted(names)
    assert len(service.billed) == len(names) == 3
    assert result.nodes["1"].texts["report"].startswith("3 of 3 pictures are done, $0.12 paid")
    assert len(result.nodes["1"].files) == 1


def test_an_edit_whose_rest_is_not_the_pictures_own_is_noticed(service: StandIn, tmp_path: Path) -> None:
    result = run("edit_and_keep", tmp_path)
    (kept,), (raw,) = result.nodes["3"].files, result.nodes["4"].files
    source = pixels(WORKFLOWS / "kontext_example.png")
    own = (pixels(kept) == source).all(-1)
    assert own[100:460, 100:-100].all(), "the stand-in draws a frame and a label"
    assert not own.all() and pixels(raw).shape == (880, 1184, 3)
    assert result.nodes["2"].ui["text"][0].endswith("the rest is your own pixels")
    assert len(service.billed) == 1


def test_a_masked_edit_that_changes_a_pixel_outside_what_was_painted_is_noticed(
    service: StandIn, tmp_path: Path
) -> None:
    (path,) = run("masked_remote_edit", tmp_path).nodes["5"].files
    with Image.open(WORKFLOWS / "kontext_example_masked.png") as painted:
        source, alpha = np.asarray(painted)[..., :3], np.asarray(painted)[..., 3]
    same = (pixels(path) == source).all(-1)
    reach = Image.fromarray((alpha < 255).astype(np.uint8)).filter(ImageFilter.MaxFilter(2 * 16 + 1))
    assert same[np.asarray(reach) == 0].all() and not same[alpha == 0].all()
    assert len(service.billed) == 1


def test_edits_in_a_row_that_drift_although_keep_is_between_them_are_noticed(service: StandIn, tmp_path: Path) -> None:
    result = run("edits_in_a_row", tmp_path)
    (raw,), (kept,) = result.nodes["5"].files, result.nodes["11"].files
    source = pixels(WORKFLOWS / "kontext_example.png")
    assert (pixels(kept) == source).all(-1)[100:460, 100:-100].all()
    assert pixels(raw).shape == (880, 1184, 3)
    assert len(service.billed) == 5, "the first edit serves both rows"


@pytest.mark.parametrize("node", ["4", "7"])
def test_a_round_trip_that_changes_a_pixel_or_asks_the_service_is_noticed(
    node: str, service: StandIn, tmp_path: Path
) -> None:
    (preview,) = run("uri_round_trip", tmp_path).nodes[node].files
    assert np.array_equal(pixels(preview), pixels(WORKFLOWS / "kontext_example.png"))
    assert service.requests == []


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)
