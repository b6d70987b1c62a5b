"""A demo model that was never taught, in the files of the real one, and what it gives off ComfyUI."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from kontext_bridge.kontext.checkpoint.reading import read_checkpoint
from kontext_bridge.kontext.demo.shipped import TEXT, TRANSFORMER, VAE
from kontext_bridge.kontext.edit import LatentEdit
from kontext_bridge.kontext.fp8.compute import Compute
from kontext_bridge.kontext.standalone.mount import mount
from kontext_bridge.kontext.standalone.sampler import sample
from kontext_bridge.kontext.standalone.text import encode_words
from kontext_bridge.kontext.standalone.vae import Autoencoder
from kontext_bridge.training.autoencoder import SCALE, SHIFT, new_autoencoder
from kontext_bridge.training.export import export
from kontext_bridge.training.network import DemoNetwork
from kontext_bridge.training.transformer import DEMO
from kontext_bridge.training.vocabulary import numbers
from safetensors.torch import save_file

SIZE = replace(DEMO, doubles=1, singles=2)
SAID = "paint the boat red"
STEPS, SEED = 3, 5
WIDTH, HEIGHT = 64, 48


def untaught(seed: int = 0) -> DemoNetwork:
    """A net whose every weight is something, as after training."""
    torch.manual_seed(seed)
    network = DemoNetwork(SIZE)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0, parameter.shape[1] ** -0.5)
            elif not bool(parameter.any()):
                parameter.normal_(0, 0.1)
    return network.eval()


def write_demo(folder: Path) -> DemoNetwork:
    """The three files."""
    network = untaught()
    export(network.state_dict(), new_autoencoder().state_dict(), SIZE, folder)
    return network


def write_expected(folder: Path, network: DemoNetwork) -> None:
    """What the trained net and this pack's own readers give, in `expected.safetensors`, latents in the VAE's scale."""
    picture = torch.rand(1, HEIGHT, WIDTH, 3, generator=torch.Generator().manual_seed(2))
    autoencoder = Autoencoder(folder / VAE, torch.device("cpu"), torch.float32)
    latent = autoencoder.encode(picture)
    with torch.inference_mode():
        states, summary = network.words(torch.tensor([numbers(SAID)]))
    model = mount(read_checkpoint(folder / TRANSFORMER), dtype=torch.float32, compute=Compute.STORAGE)
    (conditioning,) = encode_words(folder / TEXT, [SAID])
    made = sample(model, LatentEdit(WIDTH, HEIGHT, STEPS, seed=SEED), conditioning, [latent])
    found = {
        "picture": picture,
        "latent": latent / SCALE + SHIFT,
        "decoded": autoencoder.decode(latent),
        "states": states,
        "summary": summary,
        "edit": made / SCALE + SHIFT,
    }
    save_file({name: tensor.clone().contiguous() for name, tensor in found.items()}, folder / "expected.safetensors")
