from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from cases import node
from comfy_api.latest import io
from kontext_bridge.headless import saved
from kontext_bridge.headless.folders import RunFolders
from kontext_bridge.headless.graph import WorkflowError
from kontext_bridge.headless.outputs import RunResult
from kontext_bridge.headless.run import NodeFailed, run_workflow
from PIL import Image

Run = Callable[..., RunResult]


def loaded(run: Run, path: str) -> tuple[torch.Tensor, torch.Tensor]:
    result = run({"1": node("LoadImage", image=path), "2": node("PreviewImage", images=["1", 0])})
    ((image,), (mask,)) = result.nodes["1"].outputs
    return image, mask


def test_a_picture_beside_the_workflow_comes_in_exactly(run: Run, tmp_path: Path) -> None:
    grid = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    Image.fromarray(grid).save(tmp_path / "in.png")
    image, mask = loaded(run, "in.png")
    assert image.dtype == torch.float32 and image.shape == (1, 5, 7, 3)
    assert np.array_equal((image[0] * 255).round().numpy(), grid)
    assert torch.equal(mask, torch.zeros(1, 64, 64))


def test_an_absolute_path_and_comfyuis_mark_of_the_input_folder_are_understood(run: Run, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    Image.new("RGB", (4, 4), "red").save(tmp_path / "deep" / "in.png")
    assert torch.equal(loaded(run, str(tmp_path / "deep/in.png"))[0], loaded(run, "deep/in.png [input]")[0])


def test_transparent_is_one_in_the_mask(run: Run, tmp_path: Path) -> None:
    picture = Image.new("RGBA", (2, 1), (10, 20, 30, 255))
    picture.putpixel((1, 0), (40, 50, 60, 0))
    picture.save(tmp_path / "in.png")
    image, mask = loaded(run, "in.png")
    assert mask.tolist() == [[[0.0, 1.0]]]
    assert (image * 255).round().tolist() == [[[[10, 20, 30], [40, 50, 60]]]]


def test_a_transparent_palette_colour_is_one_in_the_mask(run: Run, tmp_path: Path) -> None:
    picture = Image.new("P", (2, 1))
    picture.putpalette([255, 0, 0, 0, 255, 0])
    picture.putpixel((1, 0), 1)
    picture.save(tmp_path / "in.png", transparency=1)
    assert loaded(run, "in.png")[1].tolist() == [[[0.0, 1.0]]]


def test_a_photo_taken_sideways_stands_upright(run: Run, tmp_path: Path) -> None:
    picture = Image.new("RGB", (2, 3), "white")
    picture.putpixel((0, 0), (0, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "in.png", exif=exif)
    image, _ = loaded(run, "in.png")
    assert image.shape == (1, 2, 3, 3)
    assert image[0, 0, 2].tolist() == [0, 0, 0]


def test_sixteen_bit_grey_is_not_cut_to_white(run: Run, tmp_path: Path) -> None:
    Image.fromarray(np.full((2, 2), 32768, np.uint16)).save(tmp_path / "in.png")
    assert loaded(run, "in.png")[0] == pytest.approx(32768 / 65535)


def test_every_frame_of_an_animation_is_one_of_the_batch(run: Run, tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "lime", "blue")]
    frames[0].save(tmp_path / "in.webp", save_all=True, append_images=frames[1:], lossless=True)
    assert (loaded(run, "in.webp")[0][:, 0, 0] * 255).tolist() == [[255, 0, 0], [0, 255, 0], [0, 0, 255]]


def test_a_picture_that_is_not_there_is_refused_before_anything_runs(run: Run, tmp_path: Path) -> None:
    with pytest.raises(WorkflowError, match=f"there is no picture {tmp_path / 'no.png'}"):
        loaded(run, "no.png")


@pytest.mark.parametrize("keep", [0, 20, 60])
def test_a_truncated_picture_is_named(keep: int, run: Run, tmp_path: Path) -> None:
    whole = tmp_path / "whole.png"
    Image.effect_noise((64, 64), 50).save(whole)
    (tmp_path / "cut.png").write_bytes(whole.read_bytes()[:keep])
    with pytest.raises(NodeFailed, match=r"cut\.png cannot be read"):
        loaded(run, "cut.png")


def test_saved_pictures_carry_the_workflow_and_count_on(run: Run, folders: RunFolders) -> None:
    workflow = {
        "1": node("EmptyImage", width="3", height=2, batch_size=2, color=0x0A141E),
        "2": node("SaveImage", images=["1", 0], filename_prefix="deep/edit"),
    }
    first, second = run(workflow), run(workflow)
    names = [path.name for one in (first, second) for path in one.nodes["2"].files]
    assert names == [f"edit_{number:05}_.png" for number in (1, 2, 3, 4)]
    with Image.open(folders.output / "deep" / names[0]) as saved:
        assert saved.size == (3, 2) and saved.getpixel((2, 1)) == (10, 20, 30)
        assert set(saved.info) == {"prompt"}
        embedded = json.loads(saved.info["prompt"])
    assert embedded["1"]["inputs"]["width"] == 3
    assert embedded["2"] == workflow["2"]


def test_the_eight_bit_grid_comes_through_load_and_save_unchanged(run: Run, tmp_path: Path) -> None:
    grid = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(np.stack([grid, grid.T, 255 - grid], -1)).save(tmp_path / "in.png")
    result = run(
        {"1": node("LoadImage", image="in.png"), "2": node("SaveImage", images=["1", 0], filename_prefix="out")}
    )
    with Image.open(tmp_path / "in.png") as before, Image.open(result.nodes["2"].files[0]) as after:
        assert np.array_equal(np.asarray(before), np.asarray(after))


@pytest.mark.parametrize("prefix", ["../out", "/tmp/out", "a/../../out"])
def test_a_prefix_that_leads_out_of_the_output_folder_is_refused(prefix: str, run: Run) -> None:
    picture = node("EmptyImage", width=1, height=1, batch_size=1, color=0)
    with pytest.raises(NodeFailed, match="outside the output folder"):
        run({"1": picture, "2": node("SaveImage", images=["1", 0], filename_prefix=prefix)})


def test_a_preview_is_kept_apart_from_the_output(run: Run, folders: RunFolders) -> None:
    picture = node("EmptyImage", width=1, height=1, batch_size=1, color=0)
    result = run({"1": picture, "2": node("PreviewImage", images=["1", 0])})
    assert [path.parent for path in result.nodes["2"].files] == [folders.temp]
    assert all(path.is_file() for path in result.nodes["2"].files)


def test_a_picture_with_nan_in_it_is_refused_and_not_saved(folders: RunFolders) -> None:
    class Broken(io.ComfyNode):
        @classmethod
        def define_schema(cls) -> io.Schema:
            return io.Schema(node_id="Broken", inputs=[], outputs=[io.Image.Output()])

        @classmethod
        def execute(cls) -> io.NodeOutput:
            return io.NodeOutput(torch.full((1, 2, 2, 3), float("nan")))

    workflow = {"1": node("Broken"), "2": node("SaveImage", images=["1", 0], filename_prefix="out")}
    with pytest.raises(NodeFailed, match="Picture 1 holds NaN"):
        run_workflow(workflow, [Broken], folders)
    assert not list(folders.output.glob("*.png"))


def test_a_prefix_that_is_no_name_on_windows_is_refused_there_and_leaves_no_hidden_stream(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saved, "_NO_NAME", '<>:"|?*')  # as it is on Windows
    picture = node("EmptyImage", width=1, height=1, batch_size=1, color=0)
    with pytest.raises(NodeFailed, match=r'"edit:one" has one of .* Leave it out'):
        run({"1": picture, "2": node("SaveImage", images=["1", 0], filename_prefix="edit:one")})
