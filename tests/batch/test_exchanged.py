"""Results of a model, or of a further picture, that was exchanged under the same name since."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from kontext_bridge.batch.arguments import parser
from kontext_bridge.batch.asking import Asking
from kontext_bridge.batch.columns import remote_columns
from kontext_bridge.batch.likeness import likeness, weights_in
from kontext_bridge.batch.makers import chosen
from kontext_bridge.batch.planning import RowPlan
from kontext_bridge.batch.source_rows import SourceRow, Taken
from kontext_bridge.batch.workflow_rows import Recipe
from small_pictures import write_picture
from small_workflow import workflow

Pictures = Callable[..., Path]


def test_a_copy_is_alike_and_another_state_of_one_training_is_not(tmp_path: Path) -> None:
    """Header and size are the same there; times are not, from copy to copy."""
    header, weights = b"the header, which is the same", os.urandom(5 << 20)
    first, copy, later = tmp_path / "a.safetensors", tmp_path / "b.safetensors", tmp_path / "c.safetensors"
    first.write_bytes(header + weights)
    shutil.copyfile(first, copy)
    os.utime(copy, (1, 1))
    later.write_bytes(header + bytes(byte ^ 1 for byte in weights))
    assert likeness([first]) == likeness([copy]) != likeness([later])
    for small in (first, later):
        small.write_bytes(small.read_bytes()[: 1 << 20])
    assert likeness([first]) != likeness([later])
    assert likeness([first, copy]) != likeness([copy, first])


def test_of_a_folder_the_weights_that_are_loaded_count_and_nothing_beside_them(tmp_path: Path) -> None:
    for name in ("text_encoder/model.safetensors", "text_encoder/model.bin", "text_encoder_2/a.bin", "README.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    found = weights_in(tmp_path, ("text_encoder", "text_encoder_2"))
    assert [str(path.relative_to(tmp_path)) for path in found] == [
        "text_encoder/model.safetensors",
        "text_encoder_2/a.bin",
    ]
    assert weights_in(tmp_path / "text_encoder", ("transformer",)) == [tmp_path / "text_encoder" / "model.safetensors"]


def test_a_lora_that_is_exchanged_under_its_name_is_noticed(tmp_path: Path) -> None:
    lora = tmp_path / "lora.safetensors"
    words = ["pictures", "--output", "out", "--prompt", "x", "--demo", "--lora", str(lora)]
    lora.write_text("one")
    first = chosen(parser().parse_args(words))
    before = first.made_with()
    lora.write_text("two")
    again = chosen(parser().parse_args(words))
    assert again.by == first.by and again.made_with() != before
    assert chosen(parser().parse_args(words[:5])).made_with() == ""


def planned(folder: Path, made_with: str) -> RowPlan:
    plan = RowPlan(Asking(folder, "local", remote_columns(), {"prompt": "x"}, made_with=made_with))
    plan.read([SourceRow(1, "line 2", "a.png")])
    return plan


def test_results_of_another_file_are_refused_in_words_and_those_of_an_earlier_version_are_kept(
    pictures: Pictures, tmp_path: Path
) -> None:
    folder, out = pictures("a.png"), tmp_path / "out"
    write_picture(out / "a.png")
    (row,) = planned(folder, "one").to_do(tmp_path / "nowhere", again=False)
    line = {"output": "a.png", "state": "done", "asked": row.asked, "made_with": row.made_with}
    assert row.made_with == "one"
    plan = planned(folder, "two")
    plan.read_report([line])
    with pytest.raises(Taken, match=r"exchanged since.*Put the file back.*--replace"):
        plan.refuse_overwriting(out, replaces=False)
    plan.refuse_overwriting(out, replaces=True)
    assert plan.counts(out, again=False).left == 1 and not list(plan.lines())
    again = planned(folder, "two")
    again.read_report([line, {**line, "made_with": "two"}])
    again.refuse_overwriting(out, replaces=False)
    assert again.counts(out, again=False).done == 1
    # an earlier version did not note it
    del line["made_with"]
    before = planned(folder, "two")
    before.read_report([line])
    before.refuse_overwriting(out, replaces=False)
    assert before.counts(out, again=False).done == 1 and list(before.lines()) == [0]


def test_a_workflow_s_other_pictures_are_noticed_too(tmp_path: Path) -> None:
    path, images = workflow(tmp_path), tmp_path / "images"
    text = path.read_text().replace('"3":', '"5": {"class_type": "LoadImage", "inputs": {"image": "look.png"}}, "3":')
    path.write_text(text)
    second, own = write_picture(images / "second.png"), write_picture(tmp_path / "look.png")
    recipe = Recipe(path, ["image=1.image", "second=5.image"], [])
    values = {"second": "second.png"}
    before = recipe.columns().further(values, images)
    second.write_bytes(second.read_bytes() + b"more")
    assert recipe.columns().further(values, images) != before
    assert recipe.columns().further({}, images) == recipe.columns().further({"second": "none.png"}, images) == ()
    assert recipe.own_pictures() == [] and Recipe(path, ["image=1.image"], []).own_pictures() == [own]
