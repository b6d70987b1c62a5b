"""The demo's LoRA: nothing at first, read by the pack's own reader, and what it does is what the file says."""

import torch
from kontext_bridge.kontext.checkpoint.lora import read_lora
from kontext_bridge.training.album import Subject, lantern_sheet
from kontext_bridge.training.autoencoder import encoded, new_autoencoder
from kontext_bridge.training.instructions import EditKind
from kontext_bridge.training.lora import branched, lora_tensors, taught
from kontext_bridge.training.network import DemoNetwork, edits
from kontext_bridge.training.pool import Pool
from kontext_bridge.training.scenes import SMALL
from kontext_bridge.training.transformer import DEMO
from kontext_bridge.training.wording import WITH_LIGHTS
from safetensors.torch import save_file

TINY = DEMO.__class__(DEMO.hidden, 1, 1, DEMO.context, DEMO.pooled)
SAID = [WITH_LIGHTS[0]]


def stirred():
    """A net whose gates are not zero, so that its blocks do something."""
    torch.manual_seed(1)
    network = DemoNetwork(TINY).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return network


def test_branches_change_nothing_until_they_are_taught():
    network = stirred()
    source = torch.randn(1, 16, 8, 10)
    before = edits(network, source, SAID, 1)
    branched(network)
    assert torch.equal(edits(network, source, SAID, 1), before)


def test_what_is_taught_is_what_the_file_adds(tmp_path):
    torch.manual_seed(0)
    autoencoder = new_autoencoder().eval().requires_grad_(False)
    drawn = [lantern_sheet(SMALL[0], 0, 2, 0)]
    pool = Pool.made(Subject(SMALL[0], frozenset({EditKind.TIME})), drawn, lambda p: encoded(autoencoder, p), "cpu")
    network = stirred()
    branches = taught(network, [pool], 3, lessons=2)
    save_file(lora_tensors(branches), tmp_path / "lanterns.safetensors")
    lora = read_lora(tmp_path / "lanterns.safetensors", TINY)
    assert lora.patches and not lora.changes
    merged = stirred()
    with torch.no_grad():
        for name, branch in branches.items():
            layer = merged.flux.get_submodule(name)
            layer.weight += branch.up.half().float() @ branch.down.half().float()
    source = torch.randn(1, 16, 8, 10)
    assert torch.allclose(edits(merged, source, SAID, 1), edits(network, source, SAID, 1), atol=1e-3)
    assert not torch.allclose(edits(stirred(), source, SAID, 1), edits(network, source, SAID, 1), atol=1e-3)
