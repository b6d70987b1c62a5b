"""Every plausible mistake of a sampler shows in what the demo model makes of held-out instructions."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from demo_judge import Examination, Judge, edited_pictures, examination, files, table
from kontext_bridge.kontext.demo.shipped import DemoFiles, demo_files
from kontext_bridge.kontext.errors import DamagedFile
from kontext_bridge.training.evaluate import Judged
from kontext_bridge.training.scenes import SMALL
from mutations import MUTATIONS, UNCHANGED, Mutation, is_caught
from tiny_demo import write_demo

# Of this many held-out instructions of each kind, at this many steps: a minute on one core.
SIZE, EACH, DOUBLES, STEPS = (128, 128), 4, 4, 8


@pytest.fixture(scope="module")
def untaught(tmp_path_factory: pytest.TempPathFactory) -> DemoFiles:
    folder = tmp_path_factory.mktemp("demo")
    write_demo(folder)
    return demo_files(folder)


@pytest.fixture(scope="module")
def few() -> Examination:
    return examination(SMALL[0], each=1, doubles=0, steps=2, kinds=["season", "remove"])


@pytest.fixture(scope="module")
def before(untaught: DemoFiles, few: Examination) -> Iterator[torch.Tensor]:
    found = edited_pictures(untaught, few)
    yield found
    assert torch.equal(edited_pictures(untaught, few), found), "a mutation was left behind"


@pytest.mark.parametrize("mutation", MUTATIONS.values(), ids=MUTATIONS)
def test_a_mutation_that_changes_nothing_would_prove_nothing(
    mutation: Mutation, untaught: DemoFiles, few: Examination, before: torch.Tensor
) -> None:
    with mutation():
        changed = edited_pictures(untaught, few)
    assert not torch.allclose(changed, before, atol=1e-4)


def test_the_judge_knows_what_is_worse() -> None:
    def run(right: int, outside: float) -> list[Judged]:
        return [Judged("remove", number < right, 0.1, outside) for number in range(50)]

    assert not is_caught(run(49, 34.0), run(49, 34.0)) and not is_caught(run(40, 30.0), run(49, 34.0))
    assert not is_caught(run(49, 34.0), run(47, 33.8)), "that much is chance"
    assert is_caught(run(49, 34.0), run(44, 34.0)) and is_caught(run(49, 34.0), run(49, 33.0))


@pytest.fixture(scope="module")
def taught() -> DemoFiles:
    try:
        return files()
    except DamagedFile as error:
        pytest.skip(f"there is no demo model to judge by: {error}")


@pytest.fixture(scope="module")
def exam() -> Examination:
    return examination(SIZE, EACH, DOUBLES, STEPS)


@pytest.fixture(scope="module")
def judge(taught: DemoFiles, exam: Examination) -> Judge:
    return Judge(taught, exam)


@pytest.fixture(scope="module")
def sound(taught: DemoFiles, exam: Examination, judge: Judge, tables: dict[str, list[str]]) -> list[Judged]:
    found = judge(edited_pictures(taught, exam))
    tables["held-out instructions, and what mistakes of the sampler make of them"] = table({UNCHANGED: found})
    return found


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mistake_of_the_sampler_that_no_picture_shows_is_noticed(
    name: str,
    taught: DemoFiles,
    exam: Examination,
    judge: Judge,
    sound: list[Judged],
    tables: dict[str, list[str]],
) -> None:
    with MUTATIONS[name]():
        made = edited_pictures(taught, exam)
    found = judge(made)
    tables["held-out instructions, and what mistakes of the sampler make of them"] += table({name: found})
    assert is_caught(sound, found)
