"""Scenes: before and after differ by the edit and nothing else, and the same seed draws the same."""

from dataclasses import replace

import numpy as np
import pytest
from kontext_bridge.training.drawing import drawn
from kontext_bridge.training.families import AXES, CORNERS, family, lessons
from kontext_bridge.training.instructions import EditKind, SceneEdit, edited, never_taught, possible
from kontext_bridge.training.scenes import FULL, LARGE, SMALL, Season, Time, random_scene

SIZE = SMALL[0]


def scenes(count=20, size=SIZE, seed=5):
    rng = np.random.default_rng(seed)
    return [random_scene(rng, size) for _ in range(count)]


def test_a_seed_draws_the_same_picture_again():
    first, again = (drawn(scenes(1)[0]) for _ in range(2))
    assert np.array_equal(first, again)


@pytest.mark.parametrize("size", [*SMALL, *LARGE, *FULL])
def test_every_size_fits_the_models_grid_and_is_drawn_at_it(size):
    picture = drawn(scenes(1, size)[0])
    assert picture.shape == (size[1], size[0], 3) and picture.dtype == np.uint8
    assert size[0] % 16 == size[1] % 16 == 0


def test_every_edit_that_is_possible_changes_the_picture():
    for scene in scenes(6):
        for time in Time:
            lit = replace(scene, time=time)
            before = drawn(lit)
            for edit in possible(lit):
                change = np.abs(drawn(edited(lit, edit)).astype(int) - before).max(-1)
                assert change.max() > 20 and (change > 12).sum() >= 8, edit


def test_painting_the_boat_leaves_the_sky_alone():
    scene = next(s for s in scenes() if s.boat is not None and s.boat.colour != "red")
    before, after = drawn(scene), drawn(edited(scene, SceneEdit(EditKind.RECOLOUR, "boat", "red")))
    sky = slice(0, int(scene.horizon * scene.height * 0.5))
    assert np.array_equal(before[sky], after[sky])
    assert not np.array_equal(before, after)


def test_removing_what_was_added_gives_the_scene_back():
    scene = next(s for s in scenes() if s.boat is None)
    added = edited(scene, SceneEdit(EditKind.ADD, "boat", "yellow"))
    assert added.boat is not None and added.boat.colour == "yellow"
    assert edited(added, SceneEdit(EditKind.REMOVE, "boat")) == scene


def test_a_mirrored_scene_is_the_mirror_image():
    scene = replace(scenes(1)[0], mirrored=False)
    assert np.array_equal(drawn(replace(scene, mirrored=True)), drawn(scene)[:, ::-1])


def test_night_is_darker_than_day_and_winter_paler_than_summer():
    scene = replace(scenes(1)[0], time=Time.DAY, season=Season.SUMMER)
    day = drawn(scene).mean()
    assert drawn(replace(scene, time=Time.NIGHT)).mean() < day - 30
    assert drawn(replace(scene, season=Season.WINTER)).mean() > day + 10


@pytest.mark.parametrize("placing", [False, True])
def test_lessons_of_a_family_lead_where_their_edits_lead(placing):
    rng = np.random.default_rng(2)
    checked = 0
    for _ in range(40):
        cube = family(rng, SIZE, frozenset(EditKind), placing)
        assert len(cube.corners) == CORNERS and len(cube.axes) == AXES
        for axes in ((0,), (1,), (2,), (0, 1), (1, 2), (0, 2)):
            for lesson in lessons(cube, axes):
                scene = cube.corners[lesson.source]
                for edit in lesson.edits:
                    assert not never_taught(edit)
                    scene = edited(scene, edit)
                assert scene == cube.corners[lesson.target]
                checked += 1
    assert checked > 500


def test_what_is_borrowed_looks_as_it_does_in_the_second_picture():
    rng = np.random.default_rng(8)
    for _ in range(20):
        cube = family(rng, SIZE, frozenset(EditKind))
        there = cube.axes[0].there
        assert cube.second is not None and there is not None and there.kind is EditKind.BORROW
        lender, taken = cube.second.thing(there.what), cube.corners[1].thing(there.what)
        assert cube.corners[0].thing(there.what) is None and (lender.colour, lender.accent) == (
            taken.colour,
            taken.accent,
        )


def test_lessons_that_place_are_more_often_of_what_is_added_moved_and_resized():
    shares = []
    for placing in (False, True):
        rng, kinds = np.random.default_rng(4), frozenset(EditKind) - {EditKind.BORROW}
        cubes = [family(rng, SIZE, kinds, placing) for _ in range(60)]
        said = [lesson.edits[0].kind for cube in cubes for axis in range(AXES) for lesson in lessons(cube, (axis,))]
        shares.append(sum(kind in (EditKind.ADD, EditKind.MOVE, EditKind.RESIZE) for kind in said) / len(said))
    assert shares[0] < 0.4 < 0.47 < shares[1]


def test_families_are_found_where_bare_scenes_have_too_few_edits():
    for seed in range(60):
        cube = family(np.random.default_rng(seed), SIZE, frozenset({EditKind.RECOLOUR, EditKind.TIME}))
        assert len(cube.axes) == AXES
