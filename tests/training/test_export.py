"""The exported files are read by the pack as Kontext's and FLUX's own are, and give what the training's net gives."""

import pytest
import torch
from kontext_bridge.kontext.checkpoint.layers import Naming, sizes_by_name
from kontext_bridge.kontext.checkpoint.reading import read_checkpoint
from kontext_bridge.kontext.demo.shipped import demo_files
from kontext_bridge.kontext.fp8.compute import Compute
from kontext_bridge.kontext.latents import noise, pack, unpack
from kontext_bridge.kontext.schedule import schedule
from kontext_bridge.kontext.standalone.denoiser import Conditioning, Denoiser
from kontext_bridge.kontext.standalone.mount import mount
from kontext_bridge.kontext.standalone.vae import Autoencoder
from kontext_bridge.training.autoencoder import decoded, encoded, new_autoencoder, trained_autoencoder
from kontext_bridge.training.export import TEXT, TRANSFORMER, VAE, export, rounded_as_stored
from kontext_bridge.training.network import GUIDANCE, DemoNetwork, edits, rotary_for
from kontext_bridge.training.stored import laid_out
from kontext_bridge.training.train import WEIGHTS as NETWORK_WEIGHTS
from kontext_bridge.training.vocabulary import numbers
from safetensors.torch import load_file
from tiny_demo import SIZE, untaught

WIDTH, HEIGHT = 48, 32


@pytest.fixture(scope="module")
def trained():
    return untaught()


@pytest.fixture(scope="module")
def files(trained, tmp_path_factory):
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("demo")
    vae = new_autoencoder().eval()
    export(trained.state_dict(), vae.state_dict(), SIZE, folder)
    return folder, vae


def test_what_is_stored_can_be_taught_further_and_stores_as_the_same(files, tmp_path):
    folder, _ = files
    laid_out(demo_files(folder), tmp_path)
    network = DemoNetwork(SIZE)
    network.load_state_dict(load_file(tmp_path / NETWORK_WEIGHTS))
    vae = trained_autoencoder(tmp_path)
    export(network.state_dict(), vae.state_dict(), SIZE, tmp_path / "model")
    for name in (TRANSFORMER, VAE, TEXT):
        before, after = load_file(folder / name), load_file(tmp_path / "model" / name)
        assert before.keys() == after.keys()
        for key, tensor in before.items():
            exact = {"rtol": 1e-6, "atol": 0.0} if key.endswith("scale_weight") else {"rtol": 0.0, "atol": 0.0}
            torch.testing.assert_close(after[key].float(), tensor.float(), **exact)


def test_the_transformer_is_taken_for_a_kontext_of_its_size(files, caplog):
    checkpoint = read_checkpoint(files[0] / TRANSFORMER)
    assert checkpoint.size == SIZE and checkpoint.naming is Naming.BFL and checkpoint.is_fp8
    assert not caplog.records  # labelled: it says which FLUX it is
    assert set(checkpoint.linears) == set(sizes_by_name(SIZE, Naming.BFL))


def test_the_mounted_model_gives_the_velocity_of_the_net_in_training(files, trained):
    checkpoint = read_checkpoint(files[0] / TRANSFORMER)
    model = mount(checkpoint, dtype=torch.float32, compute=Compute.REFERENCE)
    rounded = DemoNetwork(SIZE).eval()
    rounded.load_state_dict(trained.state_dict())
    rounded_as_stored(rounded)
    words = torch.tensor([numbers("paint the boat red")])
    reference, start = noise(3, 1, HEIGHT // 8, WIDTH // 8), noise(4, 1, HEIGHT // 8, WIDTH // 8)
    with torch.inference_mode():
        text, pooled = rounded.words(words)
        sigmas = schedule(4, HEIGHT * WIDTH // 256)
        denoiser = Denoiser(model, Conditioning(text, pooled), [reference], HEIGHT // 8, WIDTH // 8, sigmas, GUIDANCE)
        theirs = denoiser(pack(start), 1)
        ours = rounded(
            pack(start), pack(reference), words, sigmas[1:2], torch.tensor([GUIDANCE]), rotary_for(WIDTH, HEIGHT)
        )
    assert (theirs - ours).norm() / ours.norm() < 2e-5


def test_the_vae_is_read_as_flux_and_gives_the_same_pictures(files):
    folder, vae = files
    read = Autoencoder(folder / VAE, torch.device("cpu"), torch.float32)
    image = torch.rand(1, HEIGHT, WIDTH, 3, generator=torch.Generator().manual_seed(2))
    latent = encoded(vae, image.movedim(-1, 1) * 2 - 1)
    assert (read.encode(image) - latent).abs().max() < 5e-3  # stored in 16 bits
    assert (read.decode(latent).movedim(-1, 1) * 2 - 1 - decoded(vae, latent)).abs().max() < 1e-2


def test_an_edit_has_the_shape_of_its_source(trained):
    source = noise(0, 2, HEIGHT // 8, WIDTH // 8)
    made = edits(trained, source, ["make it night", "remove the birds"], steps=2)
    assert made.shape == source.shape and bool(torch.isfinite(made).all())
    assert torch.equal(unpack(pack(made), HEIGHT // 8, WIDTH // 8), made)
