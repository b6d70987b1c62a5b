"""Training goes on exactly where it was stopped, and a net that grows gives at first what it gave before."""

from dataclasses import replace

import pytest
import torch
from kontext_bridge.training.autoencoder import AutoencoderTraining, decoded, encoded, new_autoencoder, whole_state
from kontext_bridge.training.instructions import EditKind
from kontext_bridge.training.muon import orthogonal
from kontext_bridge.training.network import edits
from kontext_bridge.training.pool import Course
from kontext_bridge.training.scenes import SMALL
from kontext_bridge.training.train import Teacher, TrainingPlan

FIRST = Course("first", (1, 1), SMALL[:1], frozenset({EditKind.RECOLOUR, EditKind.TIME}), 3, plain=True)
PLAN = TrainingPlan(start=2, most=4, last=4, courses=(FIRST, replace(FIRST, name="second", blocks=(2, 2))))


@pytest.fixture(scope="module")
def autoencoder():
    torch.manual_seed(0)
    return new_autoencoder().eval().requires_grad_(False)


def steps(teacher, count):
    return [teacher.lesson() for _ in range(count)]


def test_a_stopped_training_goes_on_as_if_it_had_not_been(autoencoder, tmp_path):
    teacher = Teacher(tmp_path, autoencoder, PLAN)
    steps(teacher, 2)
    teacher.save()
    expected = steps(teacher, 2)
    assert steps(Teacher(tmp_path, autoencoder, PLAN), 2) == expected


def test_a_grown_net_goes_on_where_it_was(autoencoder, tmp_path):
    teacher = Teacher(tmp_path, autoencoder, PLAN)
    steps(teacher, 2)
    source = torch.randn(1, 16, 4, 4, generator=torch.Generator().manual_seed(1))
    before = edits(teacher.averaged(), source, ["make it night"], steps=2)
    teacher.advance()
    assert len(teacher.network.flux.double_blocks) == 2
    assert torch.equal(edits(teacher.averaged(), source, ["make it night"], steps=2), before)
    steps(teacher, 1)
    teacher.save()
    assert Teacher(tmp_path, autoencoder, PLAN).network.size == teacher.network.size


def test_blocks_that_sleep_give_the_same_pictures_once_they_are_in_the_file(autoencoder):
    whole = new_autoencoder(()).eval()
    whole.load_state_dict(whole_state(autoencoder.state_dict()))
    picture = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        latent = autoencoder.encoder(picture)
        assert torch.equal(whole.encoder(picture), latent)
        assert torch.equal(whole.decoder(latent[:, :16]), autoencoder.decoder(latent[:, :16]))


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


def test_a_decoder_that_is_taught_on_keeps_the_latents_and_begins_with_the_same_pictures():
    first = AutoencoderTraining()
    picture = first.pictures(4000)
    latent, shown = encoded(first.model, picture), decoded(first.model, encoded(first.model, picture))
    second = AutoencoderTraining(first=first.model.state_dict())
    assert torch.equal(decoded(second.model, latent), shown)
    second.train_step(picture, 1.0)
    assert torch.equal(encoded(second.model, picture), latent)
    assert not torch.equal(decoded(second.model, latent), shown)
    assert second.model.decoder.up_blocks[3].resnets[1].conv2.weight.abs().max() > 0
