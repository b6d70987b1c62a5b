"""What only a GPU can show of the layers, on one where there is one; the same on a CPU, so that the tests are sound."""

import pytest
import torch
from kontext_bridge.kontext.fp8 import devices, quantising
from kontext_bridge.kontext.fp8.branches import Branch
from kontext_bridge.kontext.fp8.compute import Compute, Linear, project
from kontext_bridge.kontext.fp8.devices import ability, holds_fp8
from kontext_bridge.kontext.fp8.formats import E4M3, E5M2, Product, dequantise, quantise_input
from kontext_bridge.kontext.fp8.products import scaled_mm
from kontext_bridge.kontext.latents import noise, pack
from kontext_bridge.kontext.schedule import schedule
from torch.nn import functional

ROUNDED, STORED = 4e-2, 6e-3


@pytest.fixture(params=["cpu", "cuda"])
def device(request):
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no CUDA device here")
    known = (devices._KNOWN, devices._HOLDS, quantising._WRITES, quantising._JOINS)
    kept = [dict(one) for one in known]
    with torch.inference_mode():
        yield torch.device(request.param, *([0] * (request.param == "cuda")))
    for one, before in zip(known, kept, strict=True):
        one.clear()
        one.update(before)


def drawn(device, *shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(device)


def weights(device, n=256, k=512, *, by_row=False, kind=E4M3):
    weight = (drawn(device, n, k) * 40).to(kind)
    scale = drawn(device, n).abs() * 0.01 + 1e-3 if by_row else torch.tensor(0.0037, device=device)
    return weight, scale, drawn(device, n, seed=1)


def relative(one, other):
    return float((one.double() - other.double()).norm() / other.double().norm())


def products_of(device):
    return [product for product in Product if devices._refusal(device, product) is None]


def test_a_gpu_has_a_product_and_says_why(device):
    found = ability(device)
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 9):
        assert found.product in products_of(device), found.why
    assert found.why and holds_fp8(device)


@pytest.mark.parametrize("by_row", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rows", [1, 2, 77, 4096, 4609])
def test_each_product_is_as_close_as_its_rounding(device, rows, by_row, bias):
    weight, scale, added = weights(device, by_row=by_row)
    added = added if bias else None
    for product in products_of(device):
        for centred in (False, True):
            x = (drawn(device, 1, rows, 512, seed=2) + (drawn(device, 512, seed=3) if centred else 0)).bfloat16()
            truth = functional.linear(x.float(), dequantise(weight, scale, torch.float32), added)
            out = scaled_mm(x, quantise_input(x, product, centred=centred), weight, scale, added, product)
            assert out.dtype == x.dtype and relative(out, truth) < ROUNDED, (product, centred)


@pytest.mark.parametrize("by_row", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_uneven_rows_keep_their_digits(device, by_row, dtype):
    weight, scale, _ = weights(device, by_row=by_row)
    x = (drawn(device, 1, 300, 512) * torch.logspace(-2, 1, 300, device=device)[:, None]).to(dtype)
    truth = functional.linear(x.float(), dequantise(weight, scale, torch.float32))
    for product in products_of(device):
        out = scaled_mm(x, quantise_input(x, product, centred=False), weight, scale, None, product)
        assert max(relative(out[0, i], truth[0, i]) for i in range(0, 300, 13)) < ROUNDED, product


@pytest.mark.parametrize("kind", [E4M3, E5M2])
@pytest.mark.parametrize("by_row", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("sizes", [(256, 512), (24, 40)])
def test_stored_weights_multiply_exactly(device, kind, by_row, dtype, sizes):
    weight, scale, bias = weights(device, *sizes, by_row=by_row, kind=kind)
    x = drawn(device, 2, 33, sizes[1]).to(dtype)
    truth = functional.linear(x.float(), dequantise(weight, scale, torch.float32), bias)
    for compute in (Compute.STORAGE, Compute.REFERENCE):
        out = Linear(weight, scale, bias.to(dtype), compute)(x)
        assert out.dtype == dtype and relative(out, truth) < STORED, compute
    # e5m2 and odd sizes fit no product.
    auto = Linear(weight, scale, bias.to(dtype))
    assert auto.multiplies_fp8(x) <= (kind == E4M3 and sizes[0] % 16 == 0)
    assert relative(auto(x), truth) < ROUNDED


@pytest.mark.parametrize("centred", [False, True])
def test_a_picture_of_three_is_what_it_is_alone(device, centred):
    weight, scale, bias = weights(device, by_row=True)
    x = drawn(device, 3, 640, 512).bfloat16() * torch.tensor([1.0, 30.0, 0.01], device=device).bfloat16()[:, None, None]
    for product in products_of(device):
        devices._KNOWN[device] = devices.Ability(product, "asked")
        layer = Linear(weight, scale, bias.bfloat16(), Compute.FP8, centred=centred)
        layer.branches["style"] = [
            Branch(drawn(device, 16, 512).bfloat16(), drawn(device, 128, 16).bfloat16(), 64, 0.1)
        ]
        together = layer(x)
        for number in range(3):
            alone = layer(x[number : number + 1])
            assert torch.equal(together[number], alone[0]), (product, number)


def test_layers_of_one_input_share_what_it_becomes(device):
    x = drawn(device, 1, 100, 512).bfloat16()
    layers = [Linear(*weights(device, by_row=by_row), Compute.FP8, centred=True) for by_row in (False, True)]
    for product in products_of(device):
        devices._KNOWN[device] = devices.Ability(product, "asked")
        for one, layer in zip(project(x, *layers), layers, strict=True):
            assert torch.equal(one, layer(x))


def test_lora_beside_a_layer_adds_what_it_would(device):
    weight, scale, bias = weights(device)
    down, up = drawn(device, 16, 512).bfloat16() * 0.05, drawn(device, 128, 16).bfloat16()
    x = drawn(device, 2, 65, 512).bfloat16()
    layer = Linear(weight, scale, bias.bfloat16(), Compute.STORAGE)
    plain = layer(x)
    layer.branches["style"] = [Branch(down, up, 64, 0.5)]
    truth = plain.float()
    truth[..., 64:192] += x.float() @ down.float().T @ up.float().T * 0.5
    assert relative(layer(x), truth) < STORED


@pytest.mark.parametrize("shape", [(2, 16), (77, 3072), (4096, 512), (33, 15360)])
def test_all_ways_of_quantising_give_the_same_bits(device, shape):
    ways = [quantising._written]
    if device.type == "cuda":
        quantising.join_on(device)
    if quantising._JOINS.get(device):
        ways.append(quantising._joined)
    x = drawn(device, *shape) * torch.logspace(-4, 3, shape[0], device=device)[:, None]
    x[0] = 0
    x = x.bfloat16()
    for mean, together in ((None, False), (x[1:2].clone(), False), (x[1:2].clone(), True)):
        plain = quantising._plain(x, mean, together)
        for way in ways:
            for one, other in zip(way(x, mean, together), plain, strict=True):
                assert torch.equal(one.contiguous().view(torch.uint8), other.contiguous().view(torch.uint8)), way


def test_a_product_that_fails_late_leaves_the_device_storing(device, monkeypatch):
    weight, scale, bias = weights(device)
    x = drawn(device, 1, 64, 512).bfloat16()
    product = products_of(device)[0] if products_of(device) else Product.ROWS
    devices._KNOWN[device] = devices.Ability(product, "asked")

    def refuse(*_, **__):
        raise NotImplementedError("no kernel for it")

    monkeypatch.setattr(torch, "_scaled_mm", refuse)
    out = devices.multiply(x, weight, scale, bias.bfloat16(), product, centred=False, demanded=False)
    truth = functional.linear(x.float(), dequantise(weight, scale, torch.float32), bias)
    assert relative(out, truth) < STORED and ability(device).product is None


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    pytest.importorskip("diffusers")
    from kontext_bridge.kontext.standalone.tiny import write_scaled

    path = tmp_path_factory.mktemp("tiny") / "kontext_tiny.safetensors"
    write_scaled(path)
    return path


def denoised(path, device, *, modulation_device=None, compute=Compute.AUTO, compiled=False):
    from kontext_bridge.kontext.checkpoint.reading import read_checkpoint
    from kontext_bridge.kontext.standalone.denoiser import Conditioning, Denoiser
    from kontext_bridge.kontext.standalone.mount import mount

    checkpoint = read_checkpoint(path, pruned=True)
    model = mount(checkpoint, device=device, dtype=torch.bfloat16, modulation_device=modulation_device, compute=compute)
    size = checkpoint.size
    prompt = Conditioning(drawn("cpu", 1, 32, size.context), drawn("cpu", 1, size.pooled))
    reference = drawn("cpu", 1, 16, 16, 16, seed=4)
    denoiser = Denoiser(model, prompt, [reference], 16, 16, schedule(4, 64), 2.5, compiled=compiled)
    tokens = pack(noise(0, 1, 16, 16)).to(device)
    return [denoiser(tokens, step) for step in range(3)]


def test_a_model_with_its_modulation_on_the_cpu_gives_the_same(device, tiny):
    here = denoised(tiny, device)
    for one, other in zip(denoised(tiny, device, modulation_device="cpu"), here, strict=True):
        assert relative(one, other) < ROUNDED


def test_fp8_and_stored_models_are_near_the_cpus(device, tiny):
    truth = denoised(tiny, torch.device("cpu"), compute=Compute.REFERENCE)
    for compute in (Compute.STORAGE, Compute.AUTO):
        for one, other in zip(denoised(tiny, device, compute=compute), truth, strict=True):
            assert relative(one.cpu(), other) < 2 * ROUNDED


def test_a_compiled_model_has_no_graph_breaks_and_gives_the_same(device, tiny):
    if device.type == "cpu":
        pytest.skip("compiled in its own tests on a CPU")
    from torch._dynamo.utils import counters

    counters.clear()
    eager = denoised(tiny, device)
    for one, other in zip(denoised(tiny, device, compiled=True), eager, strict=True):
        assert relative(one, other) < 2 * ROUNDED
    assert not counters["graph_break"], dict(counters["graph_break"])
