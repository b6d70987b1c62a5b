"""Every way to sample off ComfyUI does what it is told: each is judged by the demo model's edits of the same cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from demo_judge import Bounds, Editor, Judge, as_image, exam, files
from kontext_bridge.imaging import canvas as canvases
from kontext_bridge.kontext.demo.shipped import DemoFiles
from kontext_bridge.kontext.fp8.compute import Compute
from kontext_bridge.kontext.fp8.devices import ability
from kontext_bridge.kontext.fp8.formats import FORMATS
from kontext_bridge.kontext.standalone.denoiser import Exact
from kontext_bridge.training.evaluate import Case, pictures
from kontext_bridge.training.instructions import EditKind
from kontext_bridge.training.scenes import FULL
from mutations import BOUNDS
from safetensors.torch import load_file, save_file

# Of cases that are all done right even one fewer would be more than the points that a faster way may cost.
STEPS, MANY_STEPS = 8, 20
TABLE = "held-out instructions by every way off ComfyUI"


class Room:
    """The demo's editor, its cases and their judge, made once."""

    def __init__(self, demo: DemoFiles, tables: dict[str, list[str]]) -> None:
        self.demo = demo
        self.editor = Editor(demo)
        self.asked = exam(FULL[0], 2)
        self._judge = Judge(demo, self.asked)
        self._tables = tables

    def faults(self, way: str, editor: Editor, steps: int = STEPS) -> list[str]:
        return self.judged(way, editor, self.asked, self._judge, steps)

    def judged(
        self, way: str, editor: Editor, asked: Sequence[Case], judge: Judge, steps: int = STEPS, bounds: Bounds = BOUNDS
    ) -> list[str]:
        seen = judge(editor.edited(asked, steps))
        faults = bounds.faults(seen)
        self._tables.setdefault(TABLE, []).append(f"{way:36} {seen}   {'; '.join(faults)}")
        return faults


@pytest.fixture(scope="module")
def room(tables: dict[str, list[str]]) -> Room:
    return Room(files(), tables)


def test_an_edit_that_is_not_what_was_asked_for_is_noticed(room: Room) -> None:
    assert not room.faults(f"FP8 weights, {STEPS} steps", room.editor)


def test_instructions_that_few_steps_get_wrong_and_many_right_are_noticed(room: Room) -> None:
    assert not room.faults(f"FP8 weights, {MANY_STEPS} steps", room.editor, MANY_STEPS)


def written_out(demo: DemoFiles, folder: Path) -> DemoFiles:
    """The demo with the same weights as float32 and no scales."""
    tensors = load_file(demo.transformer)
    plain = {}
    for name, tensor in tensors.items():
        if name == "scaled_fp8" or name.endswith(".scale_weight"):
            continue
        scale = tensors.get(f"{name.removesuffix('weight')}scale_weight")
        assert (tensor.dtype in FORMATS) == (scale is not None)
        plain[name] = tensor.float() if scale is None else tensor.float() * scale
    path = folder / "kontext_demo_float32.safetensors"
    save_file(plain, path)
    return replace(demo, transformer=path)


def test_what_fp8_weights_get_wrong_and_float32_right_is_noticed(room: Room, tmp_path: Path) -> None:
    wide = Editor(written_out(room.demo, tmp_path), quantise=False)
    assert not any(tensor.dtype in FORMATS for tensor in wide.model.buffers())
    assert not room.faults("float32 weights", wide)


def test_what_fp8_arithmetic_gets_wrong_and_fp8_weights_right_is_noticed(room: Room) -> None:
    if ability(torch.device("cpu")).product is None:
        pytest.skip("this torch has no FP8 product on the CPU")
    assert not room.faults("FP8 arithmetic", Editor(room.demo, Compute.FP8))


def test_what_bfloat16_gets_wrong_and_float32_right_is_noticed(room: Room) -> None:
    assert not room.faults("computed in bfloat16", Editor(room.demo, dtype=torch.bfloat16))


@pytest.mark.parametrize("left_out", ["modulation", "embeddings", "positions", "dead_rows"])
def test_a_saving_that_changes_the_edit_is_noticed(left_out: str, room: Room) -> None:
    few = room.asked[:3]
    usual = room.editor.latents(few, 3)
    without = room.editor.latents(few, 3, exact=Exact(**{left_out: False}))
    assert (usual - without).norm() < 1e-4 * usual.norm()


def test_a_second_picture_that_is_not_looked_at_is_noticed(room: Room) -> None:
    asked = exam(FULL[0], 4, [EditKind.BORROW])
    assert not room.judged("from a second picture", room.editor, asked, Judge(room.demo, asked))


@pytest.mark.parametrize("size", FULL[1:], ids=lambda size: f"{size[0]}x{size[1]}")
def test_a_shape_that_is_edited_worse_is_noticed(size: tuple[int, int], room: Room) -> None:
    asked = exam(size, 1, [EditKind.RECOLOUR, EditKind.REMOVE, EditKind.SWAP])
    assert not room.judged(f"{size[0]}x{size[1]}", room.editor, asked, Judge(room.demo, asked))


def test_a_mask_that_lets_something_else_change_or_spoils_the_edit_is_noticed(room: Room) -> None:
    """A picture of twice the size each way, prepared and restored as the nodes of these names do."""
    feather = 8
    for case in exam((256, 256), 3, [EditKind.RECOLOUR]):
        source, truth = (as_image(pictures([scene])) for scene in (case.scene, case.truth))
        change = ((source - truth).abs().amax(-1) > 0.05).float()
        canvas = canvases.prepare(source, change, megapixels=128 * 128 / 2**20, margin=256, feather=feather)
        made = room.editor.edited_image(canvas.prepared, case.said, STEPS)
        restored = canvases.restore(made, canvas)
        far = torch.nn.functional.max_pool2d(change, 2 * feather + 1, 1, feather) == 0
        assert torch.equal(restored[far], source[far])
        inside = change > 0
        missing = (restored - truth)[inside].abs().mean() / (source - truth)[inside].abs().mean()
        assert missing < 0.4, (case.said, float(missing))
