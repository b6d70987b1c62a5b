"""A LoRA for the demo: "make it night, with lights", which the model itself has never heard of.

python -m kontext_bridge.training.lora FOLDER [--device cuda] [--steps 600] [--families 400] [--workers 12]

FOLDER is the training's work folder. Writes `model/kontext_demo_lanterns_lora.safetensors` there, under the names that
ComfyUI and the pack read.
"""

from __future__ import annotations

import argparse
import logging
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import nn

from ..kontext.demo.shipped import LORAS
from .album import Subject, lantern_sheet
from .asked_for import above_zero, carried_out
from .autoencoder import encoded, trained_autoencoder
from .instructions import EditKind
from .kept_files import put_tensors
from .network import DemoNetwork, lesson_loss, rotary_for
from .pool import Pool
from .scenes import FULL
from .train import trained_network

logger = logging.getLogger(__name__)

(FILE,) = LORAS
RANK = 8
_RATE = 2e-3
_LESSONS = 48
_CHUNK = 20
_TOLD_EVERY = 50


class WithBranch(nn.Module):
    """A linear layer, frozen, and beside it a product of two thin matrices that begins at zero."""

    def __init__(self, layer: nn.Linear, rank: int = RANK) -> None:
        super().__init__()
        self.layer = layer
        device = layer.weight.device
        self.down = nn.Parameter(torch.randn(rank, layer.in_features, device=device) / layer.in_features**0.5)
        self.up = nn.Parameter(torch.zeros(layer.out_features, rank, device=device))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.layer(x)
        return out + x @ self.down.T @ self.up.T


def branched(network: DemoNetwork) -> dict[str, WithBranch]:
    """Freezes the network and gives the layers within its blocks branches, by the layers' names; not modulation."""
    network.requires_grad_(False)
    found: dict[str, WithBranch] = {}
    for name, layer in list(network.flux.named_modules()):
        if isinstance(layer, nn.Linear) and "blocks." in name and "mod" not in name:
            parent, _, child = name.rpartition(".")
            found[name] = WithBranch(layer)
            setattr(network.flux.get_submodule(parent), child, found[name])
    return found


def lora_tensors(branches: dict[str, WithBranch]) -> dict[str, torch.Tensor]:
    """The branches as a file has them."""
    found = {}
    for name, branch in branches.items():
        found[f"diffusion_model.{name}.lora_A.weight"] = branch.down.detach().half().cpu().contiguous()
        found[f"diffusion_model.{name}.lora_B.weight"] = branch.up.detach().half().cpu().contiguous()
    return found


def taught(
    network: DemoNetwork, pools: list[Pool], steps: int, lessons: int = _LESSONS, seed: int = 0
) -> dict[str, WithBranch]:
    """Branches of the network, taught with pools by turns."""
    torch.manual_seed(seed)
    branches = branched(network)
    device = next(network.parameters()).device
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    adam = torch.optim.Adam(parameters, lr=_RATE)
    losses: list[torch.Tensor] = []
    for step in range(steps):
        for group in adam.param_groups:
            group["lr"] = _RATE * min(1.0, (step + 1) / 20, max(0.02, 2 * (1 - step / steps)))
        pool = pools[step % len(pools)]
        batch = pool.batch(lessons, 0.0)
        loss = lesson_loss(network, batch, rotary_for(*pool.subject.size).to(device))
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
        losses.append(loss.detach())
        if (step + 1) % _TOLD_EVERY == 0:
            logger.info("LoRA %d: loss %.4f", step + 1, float(torch.stack(losses).mean()))
            losses = []
    return branches


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m kontext_bridge.training.lora",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=above_zero, default=600)
    parser.add_argument("--families", type=above_zero, default=400, help="scenes of each size")
    parser.add_argument("--workers", type=above_zero, default=1, help="processes that draw")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    network, autoencoder = (
        trained_network(given.folder).to(given.device),
        trained_autoencoder(given.folder, given.device),
    )
    pools = []
    with ProcessPoolExecutor(given.workers, get_context("spawn")) as workers:
        for size in FULL[:3]:
            subject = Subject(size, frozenset({EditKind.TIME}))
            starts = range(0, given.families, _CHUNK)
            stops = [min(start + _CHUNK, given.families) for start in starts]
            drawn = workers.map(lantern_sheet, repeat(size), starts, stops, repeat(0))
            pools.append(Pool.made(subject, drawn, lambda shown: encoded(autoencoder, shown), given.device))
    branches = taught(network, pools, given.steps)
    (given.folder / "model").mkdir(exist_ok=True)
    put_tensors(lora_tensors(branches), given.folder / "model" / FILE, {"modelspec.license": "MIT"})


if __name__ == "__main__":
    carried_out(main)
