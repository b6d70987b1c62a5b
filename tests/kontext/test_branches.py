"""LoRA beside a layer: what it adds, what that costs, and several at once."""

import pytest
import torch
from cards import RTX_40, RTX_40_ON_WINDOWS
from kontext_bridge.kontext.checkpoint.layers import Naming, sizes_by_name
from kontext_bridge.kontext.checkpoint.lora import read_lora
from kontext_bridge.kontext.fp8.branches import Branch, join
from kontext_bridge.kontext.fp8.compute import Compute, Linear
from kontext_bridge.kontext.fp8.formats import E4M3
from kontext_bridge.kontext.standalone.lora import attach
from pretended import pretended

CPU = torch.device("cpu")
TYPES = [torch.bfloat16, torch.float16, torch.float32]


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def relative(one, other):
    return ((one.double() - other.double()).norm() / other.double().norm()).item()


def branch(rows=48, inputs=64, rank=4, offset=16, strength=0.7, seed=0, dtype=torch.float32):
    down, up = random(rank, inputs, seed=seed), random(rows, rank, seed=seed + 1)
    return Branch(down.to(dtype), up.to(dtype), offset, strength)


def effect(branches, x, outputs):
    """What branches add, in float64."""
    out = torch.zeros(*x.shape[:-1], outputs, dtype=torch.float64)
    for one in branches:
        added = one.strength * (x.double() @ one.down.double().T @ one.up.double().T)
        out[..., one.offset : one.offset + one.up.shape[0]] += added
    return out


@pytest.mark.parametrize("card", [RTX_40, RTX_40_ON_WINDOWS], ids=lambda card: card.name)
@pytest.mark.parametrize("batch", [1, 2])
def test_a_branch_reads_its_input_and_its_outputs_once_and_writes_those_once(card, batch):
    rows, inputs, outputs, rank, changed = 4096, 3072, 9216, 16, 3072
    with pretended(card) as gpu:
        bf16 = {"dtype": torch.bfloat16}
        x, out = gpu.empty(batch, rows, inputs, **bf16), gpu.empty(batch, rows, outputs, **bf16)
        one = Branch(gpu.empty(rank, inputs, **bf16), gpu.empty(changed, rank, **bf16), 3072, 0.7)
        with gpu.counting() as counted:
            one.add_to(out, x)
    numbers = batch * rows * (inputs + 2 * changed)
    assert numbers * 2 <= counted.bytes < numbers * 2 * 1.02
    assert counted.peak < x.nbytes / 50, "the branch's output is never written apart"
    assert len(counted.kernels) == 2 * batch and counted.moves == counted.waits == []


def test_several_lora_on_one_layer_read_its_input_once():
    with pretended(RTX_40) as gpu:
        bf16 = {"dtype": torch.bfloat16}
        x, out = gpu.empty(1, 4096, 3072, **bf16), gpu.empty(1, 4096, 9216, **bf16)
        parts = [Branch(torch.empty(16, 3072), torch.empty(3072, 16), offset, 0.7) for offset in (0, 3072, 6144)]
        joined = join(parts * 2, gpu.device, torch.bfloat16)
        with gpu.counting() as counted:
            joined.add_to(out, x)
    assert sum(kernel.read > x.nbytes for kernel in counted.kernels if kernel.name == "mm") == 1
    assert counted.bytes < (x.nbytes + 2 * out.nbytes) * 1.05
    assert len(counted.kernels) == 4 and len(list(joined)) == 3


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("shape", [(5,), (1, 5), (3, 5)], ids=str)
def test_joined_branches_add_what_each_does(dtype, shape):
    parts = [
        branch(seed=seed, rank=rank, offset=offset, strength=strength)
        for seed, rank, offset, strength in [(0, 4, 0, 0.7), (2, 8, 48, -1.3), (4, 3, 0, 1.0), (6, 5, 20, 0.01)]
    ]
    x = random(*shape, 64, seed=9)
    joined = join(parts, CPU, dtype)
    assert len(list(joined)) == 3, "two are of the same rows"
    assert all(one.strength == 1 and one.down.dtype == one.up.dtype == dtype for one in joined)
    out = torch.zeros(*shape, 100, dtype=dtype)
    joined.add_to(out, x.to(dtype))
    bound = {torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 1e-2}[dtype]
    assert relative(out, effect(parts, x, 100)) < bound
    weight = torch.zeros(100, 64)
    for one in joined:
        one.add_to_weight(weight)
    assert relative(x @ weight.T, effect(parts, x, 100)) < bound
    assert join([], CPU, dtype) is None


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_a_branch_is_no_less_exact_than_one_whose_output_is_rounded_before_it_is_added(dtype):
    x, base = random(1, 64, 1024).to(dtype), random(1, 64, 512, seed=1).to(dtype)
    given = branch(512, 1024, 16, offset=0, seed=3, dtype=torch.bfloat16)
    truth = base.double() + effect([given], x, 512)
    out, apart = base.clone(), base.clone()
    join([given], CPU, dtype).add_to(out, x)
    apart += (x @ given.down.to(dtype).T @ given.up.to(dtype).T) * given.strength
    assert relative(out, truth) <= relative(apart, truth) * 1.02


@pytest.mark.parametrize("strength", [1.0, 1 / 512])
def test_a_small_strength_is_not_lost_among_the_small_half_floats(strength):
    given = branch(512, 1024, 16, offset=0, strength=strength)
    given = Branch(given.down / 30, given.up / 500, 0, strength)
    x = random(1, 16, 1024, seed=5)
    (one,) = join([given], CPU, torch.float16)
    assert relative(x.double() @ one.down.double().T @ one.up.double().T, effect([given], x, 512)) < 1e-3
    assert max(one.down.abs().max(), one.up.abs().max()) < 1


def test_an_up_of_zeros_stays_one_in_half_floats():
    one = Branch(random(4, 64), torch.zeros(48, 4), 0, 0.5)
    assert not any(part.up.any() for part in join([one], CPU, torch.float16))


@pytest.mark.parametrize("sizes", [(1e-7, 20, 1), (1e-4, 20, -5000), (1e-3, 1e-3, 1e9), (1e6, 1e-6, 1)], ids=str)
def test_factors_that_half_floats_cannot_hold_are_brought_to_where_they_can(sizes):
    down, up, strength = sizes
    given = Branch(random(4, 64) * down, random(48, 4, seed=1) * up, 0, strength)
    x = random(5, 64, seed=2)
    (one,) = join([given], CPU, torch.float16)
    assert relative(x.double() @ one.down.double().T @ one.up.double().T, effect([given], x, 48)) < 1e-3


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("damaged", [float("inf"), float("nan")])
def test_a_damaged_or_empty_lora_is_no_other_error_in_half_floats_than_elsewhere(dtype, damaged):
    down = random(4, 64)
    down[0, 0] = damaged
    (one,) = join([Branch(down, random(48, 4) / 10, 0)], CPU, dtype)
    assert not one.down.isfinite().all()
    (one,) = join([Branch(down[:0], random(48, 0), 0, 0.5)], CPU, dtype)
    out = torch.ones(2, 3, 48, dtype=dtype)
    one.add_to(out, torch.ones(2, 3, 64, dtype=dtype))
    assert torch.equal(out, torch.ones_like(out))


def test_a_picture_with_lora_does_not_depend_on_which_others_are_in_its_batch():
    weight, bias = (random(512, 1024) * 40).to(E4M3), random(512, seed=1).bfloat16()
    linear = Linear(weight, torch.tensor(0.003), bias, Compute.FP8)
    linear.branches["style"] = [branch(512, 1024, 16, offset=0, dtype=torch.bfloat16)]
    x = random(3, 33, 1024, seed=2).bfloat16()
    together = linear(x)
    for picture in range(3):
        assert torch.equal(together[picture : picture + 1], linear(x[picture : picture + 1]))


def test_the_products_of_a_batch_are_those_of_each_picture():
    """On a CPU they are alike however they are made; a GPU picks another kernel for more rows."""
    with pretended(RTX_40) as gpu:
        shapes = []
        for batch in 1, 3:
            x, out = gpu.empty(batch, 96, 512), gpu.empty(batch, 96, 256)
            with gpu.counting() as counted:
                Branch(gpu.empty(16, 512), gpu.empty(256, 16), 0).add_to(out, x)
            shapes.append({(kernel.name, kernel.read, kernel.written) for kernel in counted.kernels})
    assert shapes[0] == shapes[1]


def test_lora_of_other_strengths_and_of_more_at_once_are_no_new_graphs(save, size):
    names = sizes_by_name(size, Naming.BFL)
    layer = "double_blocks.1.img_attn.qkv"
    rows, inputs = names[layer]
    tensors = {f"{layer}.lora_A.weight": random(4, inputs), f"{layer}.lora_B.weight": random(rows, 4, seed=1)}
    lora = read_lora(save(tensors), size)
    graphs = []

    def count(graph, _):
        graphs.append(graph)
        return graph.forward

    torch.compiler.reset()
    for strength in (0.3, 0.5, 0.7, 0.9, 1.0, -1.0, 2.0, 0.11):
        linears = {name: Linear(torch.zeros(*shape), None, torch.zeros(shape[0])) for name, shape in names.items()}
        attach(linears, Naming.BFL, lora, strength)
        (one,) = linears[layer].branches[lora.name]
        x = random(1, 6, inputs, seed=3)
        added = torch.compile(one.add_to, backend=count, fullgraph=True)
        out = torch.zeros(1, 6, rows)
        added(out, x)
        assert relative(out, effect([Branch(*tensors.values(), 0, strength)], x, rows)) < 1e-6
    assert len(graphs) == 1


def test_a_compiler_follows_joined_branches_and_makes_one_more_graph_for_other_ranks():
    graphs = []

    def count(graph, _):
        graphs.append(graph)
        return graph.forward

    def added(joined, out, x):
        joined.add_to(out, x)
        return out

    torch.compiler.reset()
    compiled = torch.compile(added, backend=count, fullgraph=True)
    for rank in 4, 8, 5, 16, 12:
        for strength in 0.3, 0.7, 1.0:
            parts = [branch(rank=rank, offset=offset, strength=strength) for offset in (0, 48, 0)]
            x = random(1, 6, 64, seed=3)
            out = compiled(join(parts, CPU, torch.float32), torch.zeros(1, 6, 100), x)
            assert relative(out, effect(parts, x, 100)) < 1e-6
    assert len(graphs) <= 2
