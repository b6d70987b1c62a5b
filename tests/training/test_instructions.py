"""Instructions: every word is known, what is held out is never taught, and both orders of two edits are said."""

import numpy as np
import pytest
from kontext_bridge.kontext.demo.sentences import PAD, UNKNOWN
from kontext_bridge.training.evaluate import cases
from kontext_bridge.training.instructions import EditKind, SceneEdit, edited, never_taught, possible
from kontext_bridge.training.scenes import SMALL, Season, Time, random_scene
from kontext_bridge.training.vocabulary import PLACES, numbers
from kontext_bridge.training.wording import double_sentence, held_out, sentence, with_courtesy

SIZE = SMALL[0]


def test_every_word_that_is_said_is_known():
    rng = np.random.default_rng(0)
    for _ in range(60):
        scene = random_scene(rng, SIZE)
        edits = possible(scene)
        for judged in (False, True):
            first, second = (edits[int(k)] for k in rng.choice(len(edits), 2, replace=False))
            for said in (sentence(first, scene, rng, judged=judged), double_sentence((first, second), scene, rng)):
                said = with_courtesy(said, (first,), scene, rng)
                assert UNKNOWN not in numbers(said), said


def test_what_is_taught_and_what_is_judged_have_no_sentence_in_common():
    rng = np.random.default_rng(1)
    for _ in range(200):
        scene = random_scene(rng, SIZE)
        edits = possible(scene)
        edit = edits[int(rng.integers(len(edits)))]
        assert not held_out(sentence(edit, scene, rng))
    judged = cases(EditKind, SIZE, 6, seed=1, doubles=6)
    assert all(held_out(case.said) for case in judged)
    assert {case.kind for case in judged} == {kind.value for kind in EditKind} | {"two in one"}
    assert any(never_taught(edit) for case in judged for edit in case.edits)


def test_no_case_asks_for_nothing_or_is_held_against_its_own_truth():
    for seed in range(8):
        for case in cases(EditKind, SIZE, 12, seed, doubles=60):
            assert case.truth != case.scene, case.said
            assert all(edited(case.scene, other) != case.truth for other in case.others), case.said


def test_the_sun_is_called_the_moon_at_night():
    rng = np.random.default_rng(3)
    scene = next(s for s in (random_scene(rng, SIZE) for _ in range(99)) if s.sun is not None)
    night = edited(scene, SceneEdit(EditKind.TIME, value=Time.NIGHT.value))
    assert "moon" in sentence(SceneEdit(EditKind.REMOVE, "sun"), night, rng)


def test_two_edits_are_said_in_one_sentence():
    rng = np.random.default_rng(4)
    scene = next(s for s in (random_scene(rng, SIZE) for _ in range(99)) if s.season is Season.SUMMER)
    edits = (
        SceneEdit(EditKind.SEASON, value="winter"),
        SceneEdit(EditKind.TIME, value="evening" if scene.time is Time.DAY else "day"),
    )
    said = {double_sentence(edits, scene, rng) for _ in range(40)}
    assert len(said) > 10


@pytest.mark.parametrize("said", ["", "Paint the boat RED!", "word " * 40, "make\nit night"])
def test_any_text_becomes_as_many_numbers(said):
    found = numbers(said)
    assert len(found) == PLACES
    assert (found[0] == PAD) is (said == "")


def test_articles_and_marks_say_nothing():
    assert numbers("Paint the boat red.") == numbers("paint boat red")
