"""One graph for all strengths and ranks of LoRA and all sizes of pictures: each new one would cost minutes."""

import pytest
import torch
from kontext_bridge.kontext.fp8 import devices
from kontext_bridge.kontext.fp8.compute import Branch, Compute, Linear
from kontext_bridge.kontext.fp8.devices import Ability
from kontext_bridge.kontext.fp8.formats import E4M3, Product
from torch._dynamo.testing import CompileCounter

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def known(monkeypatch):
    monkeypatch.setitem(devices._KNOWN, CPU, Ability(Product.ROWS, "as the test says"))
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def make(compute):
    return Linear(torch.zeros(64, 32).to(E4M3), torch.tensor(0.5), torch.zeros(64), compute)


def graphs(linear, changes, rows=(48,)):
    """How many graphs a compiler makes of a layer for these strengths and ranks of LoRA and numbers of rows."""
    counter = CompileCounter()
    compiled = torch.compile(linear, backend=counter, dynamic=True)
    for strength, rank in changes:
        if rank:
            linear.branches = {"style": [Branch(torch.ones(rank, 32), torch.ones(64, rank), 0, strength)]}
        for number in rows:
            x = torch.ones(1, number, 32)
            assert torch.allclose(compiled(x), linear(x), rtol=1e-3)
    return counter.frame_count


@pytest.mark.parametrize("compute", [Compute.FP8, Compute.STORAGE])
def test_a_new_size_does_not_compile_again(compute):
    assert graphs(make(compute), [(0, 0)], rows=(48, 64, 80, 112)) == 1


@pytest.mark.parametrize("compute", [Compute.FP8, Compute.STORAGE])
def test_a_new_strength_does_not_compile_again(compute):
    assert graphs(make(compute), [(0.1 * number, 4) for number in range(1, 6)]) <= 2


@pytest.mark.parametrize("compute", [Compute.FP8, Compute.STORAGE])
def test_a_new_rank_does_not_compile_again(compute):
    assert graphs(make(compute), [(0.5, 4), (0.5, 8), (0.5, 16), (0.5, 32), (0.5, 64)]) <= 2
