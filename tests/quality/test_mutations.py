"""Every plausible mistake of a sampler shows in what the demo model makes of held-out instructions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from demo_judge import LORA, Bounds, Editor, Judge, Seen, exam, files, lantern_cases
from kontext_bridge.kontext.demo.shipped import DemoFiles
from kontext_bridge.training.evaluate import Case
from mutations import BOUNDS, KINDS, LORA_MUTATIONS, MUTATIONS, STEPS, TELLING, UNCHANGED

SIZE = (128, 128)
TABLE = "what mistakes of the sampler make of held-out instructions"


def test_the_judge_knows_what_is_worse() -> None:
    sound = Seen(30, 30, 34.0, 41.0, 1.004, -0.001, 110.0)
    assert not Bounds().faults(sound) and not Bounds(wrong=1).faults(replace(sound, right=29))
    for worse in (
        {"right": 29},
        {"kept": 36.0},
        {"contrast": 1.02},
        {"contrast": 0.98},
        {"brightness": 0.03},
        {"brightness": -0.03},
        {"vae": 50.0},
        *({name: float("nan")} for name in ("kept", "contrast", "brightness", "vae")),
    ):
        assert len(Bounds().faults(replace(sound, **worse))) == 1, worse


@pytest.fixture(scope="module")
def demo() -> DemoFiles:
    return files()


@pytest.fixture(scope="module")
def asked() -> list[Case]:
    return exam(SIZE, 1, KINDS)


@pytest.fixture(scope="module")
def judge(demo: DemoFiles, asked: list[Case]) -> Judge:
    return Judge(demo, asked)


def told(tables: dict[str, list[str]], name: str, seen: Seen) -> list[str]:
    faults = BOUNDS.faults(seen)
    tables.setdefault(TABLE, []).append(f"{name:44} {seen}   {'; '.join(faults)}")
    return faults


@pytest.fixture(scope="module")
def sound(demo: DemoFiles, asked: list[Case], judge: Judge, tables: dict[str, list[str]]) -> Iterator[None]:
    """What is judged is right without a mistake, before all of them and after."""
    made = Editor(demo).edited(asked, STEPS)
    assert not told(tables, UNCHANGED, judge(made))
    yield
    assert torch.equal(Editor(demo).latents(asked, STEPS), made.latents), "a mutation was left behind"


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mistake_of_the_sampler_that_no_picture_shows_is_noticed(
    name: str, demo: DemoFiles, asked: list[Case], judge: Judge, sound: None, tables: dict[str, list[str]]
) -> None:
    with MUTATIONS[name]():
        made = Editor(demo).edited(asked, STEPS)
    assert told(tables, name, judge(made))


@pytest.mark.parametrize("name", TELLING)
def test_a_mistake_that_only_certain_edits_tell_of_is_noticed(
    name: str, demo: DemoFiles, tables: dict[str, list[str]]
) -> None:
    one = TELLING[name]
    asked = exam(SIZE, 4, one.kinds, doubles=one.doubles)
    judge = Judge(demo, asked)
    assert not told(tables, f"{UNCHANGED}, before: {name}", judge(Editor(demo).edited(asked, STEPS)))
    with one.mutation():
        made = Editor(demo).edited(asked, STEPS)
    assert told(tables, name, judge(made))


@pytest.fixture(scope="module")
def lora(demo: DemoFiles) -> Path:
    path = demo.transformer.parent / LORA
    if not path.is_file():
        pytest.skip(f"there is no {LORA} to judge by")
    return path


@pytest.fixture(scope="module")
def at_night() -> list[Case]:
    return lantern_cases(SIZE, len(KINDS))


@pytest.fixture(scope="module")
def night_judge(demo: DemoFiles, lora: Path, at_night: list[Case]) -> Judge:
    return Judge(demo, at_night)


def seen_with_lora(demo: DemoFiles, lora: Path, asked: Sequence[Case], judge: Judge, strength: float = 1.0) -> Seen:
    editor = Editor(demo)
    editor.with_lora(lora, strength)
    return judge(editor.edited(asked, STEPS))


def test_a_lora_that_does_not_do_what_it_was_taught_is_noticed(
    demo: DemoFiles, lora: Path, at_night: list[Case], night_judge: Judge, tables: dict[str, list[str]]
) -> None:
    assert not told(tables, "the demo's LoRA", seen_with_lora(demo, lora, at_night, night_judge))
    without = seen_with_lora(demo, lora, at_night, night_judge, 0.0)
    assert told(tables, "the demo's LoRA at strength 0", without) and not without.right


@pytest.mark.parametrize("name", LORA_MUTATIONS)
def test_a_mistake_with_a_lora_that_no_picture_shows_is_noticed(
    name: str, demo: DemoFiles, lora: Path, at_night: list[Case], night_judge: Judge, tables: dict[str, list[str]]
) -> None:
    with LORA_MUTATIONS[name]():
        seen = seen_with_lora(demo, lora, at_night, night_judge)
    assert told(tables, name, seen) and not seen.right
