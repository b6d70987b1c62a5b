"""Training goes on exactly where it was stopped, and what is drawn and taught is the same from the same seed."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from kontext_bridge.kontext.latents import pack
from kontext_bridge.training.album import DOUBLES, SINGLES, Subject, sheets
from kontext_bridge.training.autoencoder import AutoencoderTraining, encoded, new_autoencoder
from kontext_bridge.training.evaluate import cases, judge
from kontext_bridge.training.instructions import EditKind
from kontext_bridge.training.muon import orthogonal
from kontext_bridge.training.pool import Pool, ready
from kontext_bridge.training.scenes import SMALL
from kontext_bridge.training.train import (
    STATE,
    Course,
    Teacher,
    TrainingPlan,
    further_plan,
    plan,
    trained_network,
)
from kontext_bridge.training.transformer import DEMO
from kontext_bridge.training.vocabulary import PLACES

ALONE = Subject(SMALL[0], frozenset({EditKind.RECOLOUR, EditKind.TIME}), plain=True)
BORROWING = Subject(SMALL[1], frozenset({EditKind.RECOLOUR, EditKind.TIME, EditKind.BORROW}))
TINY = DEMO.__class__(DEMO.hidden, 1, 1, DEMO.context, DEMO.pooled)
PLAN = TrainingPlan(
    (Course("first", 0.5, ((ALONE, 1.0),), 200), Course("second", 1.0, ((ALONE, 0.5), (BORROWING, 0.5)), 300, 0.5)),
    steps=6,
    families=2,
    size=TINY,
)


@pytest.fixture(scope="module")
def autoencoder():
    torch.manual_seed(0)
    return new_autoencoder().eval().requires_grad_(False)


@pytest.fixture(scope="module")
def pools(autoencoder):
    return {
        subject: Pool.made(subject, sheets(subject, 2, 0), lambda shown: encoded(autoencoder, shown), "cpu")
        for subject in (ALONE, BORROWING)
    }


def test_a_stopped_training_goes_on_as_if_it_had_not_been(pools, tmp_path):
    teacher = Teacher(tmp_path, PLAN, pools.__getitem__)
    for _ in range(2):
        teacher.lesson()
    teacher.save()
    expected = [float(teacher.lesson()) for _ in range(4)]
    assert [float(Teacher(tmp_path, PLAN, pools.__getitem__).lesson()) for _ in range(1)] == expected[:1]
    again = Teacher(tmp_path, PLAN, pools.__getitem__)
    again.run(60)
    assert again.step == PLAN.steps and (tmp_path / STATE).is_file()
    for name, tensor in trained_network(tmp_path, TINY).state_dict().items():
        assert torch.equal(tensor, teacher.average[name]), name


@pytest.mark.filterwarnings("ignore:Mismatch dtype")  # of torch, which would be quicker otherwise
def test_half_precision_teaches_nearly_the_same(pools, tmp_path):
    losses = []
    for half in (False, True):
        teacher = Teacher(tmp_path, PLAN, pools.__getitem__, half=half)
        losses.append([float(teacher.lesson()) for _ in range(4)])
    assert losses[0] != losses[1] and losses[1] == pytest.approx(losses[0], rel=0.02)


def test_what_has_weights_alone_is_taught_further_from_them(pools, tmp_path):
    Teacher(tmp_path, PLAN, pools.__getitem__).run(60)
    (tmp_path / STATE).unlink()
    further = Teacher(tmp_path, replace(PLAN, rate=0.5, falls_from=0.0, seed=1), pools.__getitem__)
    learned = trained_network(tmp_path, TINY).state_dict()
    assert further.step == 0
    for name, tensor in further.network.state_dict().items():
        assert torch.equal(tensor, learned[name]), name
    further.lesson(0.5)
    assert float(further._muon_rate) == pytest.approx(0.02 * 0.5 / 100)  # its first of a hundred steps of warming up
    further.step = 200
    further.lesson(0.5)
    assert float(further._muon_rate) == pytest.approx(0.02 * 0.5 * 0.5)


def test_a_hurried_plan_ends_in_its_last_course_whatever_its_steps(pools, tmp_path):
    asked_for = []
    teacher = Teacher(tmp_path, PLAN, lambda subject: asked_for.append(subject) or pools[subject])
    for _ in range(8):
        teacher.lesson(0.99)
    assert set(asked_for) == {ALONE, BORROWING}
    assert float(teacher._muon_rate) < 0.02 / 10


def test_a_pool_that_was_kept_is_the_same_pool(pools, tmp_path):
    pools[BORROWING].save(tmp_path)
    again = Pool.loaded(BORROWING, tmp_path, torch.device("cpu"))
    batches = []
    for pool in (pools[BORROWING], again):
        torch.manual_seed(3)
        batches.append(pool.batch(5, 0.5))
    assert torch.equal(batches[0].references, batches[1].references)
    assert torch.equal(batches[0].words, batches[1].words)
    assert Pool.loaded(ALONE, tmp_path, torch.device("cpu")) is None


def test_what_is_drawn_by_many_is_what_is_drawn_by_one():
    with ThreadPoolExecutor(2) as workers:
        many = list(sheets(BORROWING, 24, 7, workers))
    for one, other in zip(sheets(BORROWING, 24, 7), many, strict=True):
        for name in ("pictures", "source", "target", "words"):
            assert np.array_equal(getattr(one, name), getattr(other, name))
    assert many[0].pictures.shape[1:] == (9, *SMALL[1][::-1], 3)
    assert many[0].words.shape[1:] == (SINGLES + DOUBLES, PLACES)


def test_a_batch_has_the_second_picture_behind_the_source(pools, autoencoder):
    drawn = next(iter(sheets(BORROWING, 2, 0)))
    seconds = pack(encoded(autoencoder, ready(torch.from_numpy(drawn.pictures[:, -1]))).half().float())
    batch = pools[BORROWING].batch(8, 0.0)
    length = batch.target.shape[1]
    assert batch.references.shape[1] == 2 * length
    for second in batch.references[:, length:]:
        assert any(torch.allclose(second, one, atol=1e-3) for one in seconds)
    assert pools[ALONE].batch(8, 0.0).references.shape == pools[ALONE].batch(8, 0.0).target.shape


def test_lessons_without_guidance_leave_the_picture_as_it_is(pools):
    batch = pools[ALONE].batch(64, 0.0, unheard=0.5)
    deaf = batch.guidance < 0.5
    assert 5 < int(deaf.sum()) < 59
    assert torch.equal(batch.target[deaf], batch.references[deaf])
    assert all(not torch.equal(a, b) for a, b in zip(batch.target[~deaf], batch.references[~deaf], strict=True))


def test_every_kind_can_be_judged_a_second_picture_among_them(pools, autoencoder, tmp_path):
    teacher = Teacher(tmp_path, PLAN, pools.__getitem__)
    asked = cases(EditKind, SMALL[0], 1, 5, doubles=1)
    assert [case.second is not None for case in asked] == [case.kind == "from a second picture" for case in asked]
    verdicts, shown = judge(teacher.network.eval(), autoencoder, asked, steps=1)
    assert len(verdicts) == len(asked) == len(shown) and not all(verdict.right for verdict in verdicts)


@pytest.mark.parametrize("planned", [plan, further_plan])
@pytest.mark.parametrize("gpu", [False, True])
def test_a_plans_courses_follow_each_other_and_share_their_steps(gpu, planned):
    chosen = planned(gpu)
    assert [course.until for course in chosen.courses] == sorted(course.until for course in chosen.courses)
    assert chosen.courses[-1].until == 1
    for course in chosen.courses:
        assert sum(share for _, share in course.subjects) == pytest.approx(1)


def test_the_autoencoder_goes_on_where_it_was_stopped():
    training = AutoencoderTraining()
    pictures = training.pictures(8000)[:1]
    first = training.train_step(pictures, 1.0)
    state = torch.load(_saved(training.state()), weights_only=True)
    again = AutoencoderTraining(seed=5)
    again.resume(state)
    torch.manual_seed(3)
    expected = training.train_step(pictures, 1.0)
    torch.manual_seed(3)
    assert again.train_step(pictures, 1.0) == expected != first


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 32, 8), (2, 8, 24)])
def test_muons_matrices_have_singular_values_near_one(shape):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    values = torch.linalg.svdvals(orthogonal(matrices))
    assert values.min() > 0.3 and values.max() < 1.3


def _saved(state):
    import io

    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return file
