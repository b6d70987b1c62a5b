"""Every form of a layer on every kind of GPU, pretended: shapes and types, nothing moved, nothing read back.

What torch's own CUDA kernels refuse and a CPU takes is refused here as well (tests/pretended.py).
"""

import itertools

import pytest
import torch
from cards import CARDS, HOPPER, MAC, RTX_20, RTX_40, RTX_40_ON_WINDOWS, check_scaled_mm
from kontext_bridge.kontext.errors import UnsupportedDevice
from kontext_bridge.kontext.fp8 import devices
from kontext_bridge.kontext.fp8.compute import Branch, Compute, Linear, Shift, project
from kontext_bridge.kontext.fp8.devices import ability
from kontext_bridge.kontext.fp8.formats import E4M3, E5M2, Product, quantise_input, quantise_rows
from kontext_bridge.kontext.fp8.products import scaled_mm
from pretended import pretended

TYPES = (torch.bfloat16, torch.float16, torch.float32)
FORMS = {"e4m3": (E4M3, False), "e4m3 by row": (E4M3, True), "e5m2": (E5M2, False), "e5m2 by row": (E5M2, True)}
ROWS, INPUTS, OUTPUTS = 96, 512, 256


def make(gpu, form="e4m3", *, bias=True, lora=True, compute=Compute.AUTO, centred=False, dtype=torch.bfloat16):
    kind, by_row = FORMS.get(form, (dtype, None))
    scale = None if by_row is None else gpu.empty(*[OUTPUTS] * by_row)
    weight = gpu.empty(OUTPUTS, INPUTS, dtype=kind)
    linear = Linear(weight, scale, gpu.empty(OUTPUTS, dtype=dtype) if bias else None, compute, centred=centred)
    if lora:
        down, up = gpu.empty(16, INPUTS, dtype=dtype), gpu.empty(OUTPUTS // 2, 16, dtype=dtype)
        linear.branches = {
            "style": [Branch(down, up, 0, 0.8), Branch(down, up, OUTPUTS // 2, 0.8)],
            "other": [Branch(down, up, 32, 1.0), Shift(gpu.empty(64, dtype=dtype), 16, 0.5)],
        }
    return linear


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
@pytest.mark.parametrize("form", [*FORMS, "wide"])
def test_a_layer_that_moves_reads_back_or_changes_its_type_is_noticed_on_every_gpu(card, form):
    inputs = [((ROWS,), False), ((2, ROWS), True)]
    ways = itertools.product([False, True], [False, True], TYPES, inputs)
    with pretended(card) as gpu:
        ability(gpu.device)
        for bias, lora, dtype, (shape, centred) in ways:
            linear = make(gpu, form, bias=bias, lora=lora, centred=centred, dtype=dtype)
            x = gpu.empty(*shape, INPUTS, dtype=dtype)
            with gpu.counting() as counted:
                out = linear(x)
            way = f"bias {bias}, LoRA {lora}, centred {centred}, {dtype}, {shape}"
            assert out.shape == (*shape, OUTPUTS) and out.dtype == dtype and out.device == gpu.device, way
            assert counted.moves == counted.waits == [], way
            multiplied = any(kernel.name == "_scaled_mm" for kernel in counted.kernels)
            assert multiplied == (card.capability >= (8, 9) and form.startswith("e4m3")), way


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_layers_that_share_an_input_quantise_it_once_on_every_gpu(card):
    with pretended(card) as gpu:
        linears = [make(gpu, centred=True, lora=False) for _ in range(3)]
        x = gpu.empty(1, ROWS, INPUTS, dtype=torch.bfloat16)
        ability(gpu.device)
        with gpu.counting() as together:
            outs = project(x, *linears)
        with gpu.counting() as alone:
            for linear in linears:
                linear(x)
    assert [out.shape for out in outs] == [(1, ROWS, OUTPUTS)] * 3
    assert together.waits == together.moves == []
    assert card.capability < (8, 9) or len(together.kernels) < len(alone.kernels)


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_every_gpu_takes_the_product_that_its_torch_has(card):
    with pretended(card) as gpu:
        found = ability(gpu.device)
    if card.capability < (8, 9):
        assert found.product is None and "RTX 40" in found.why
    else:
        assert found.product is (card.faster if card.row_wise else Product.TENSOR)


def test_fp8_demanded_of_a_gpu_without_it_is_refused():
    with pretended(RTX_20) as gpu, pytest.raises(UnsupportedDevice, match="RTX 2080 Ti has none"):
        make(gpu, compute=Compute.FP8)(gpu.empty(ROWS, INPUTS, dtype=torch.bfloat16))


def test_a_device_without_8_bit_floats_is_found_out_and_takes_wide_weights():
    with pretended(MAC) as gpu:
        assert not devices.holds_fp8(gpu.device)
        x = gpu.empty(2, ROWS, INPUTS, dtype=torch.bfloat16)
        with gpu.counting() as counted:
            assert make(gpu, "wide")(x).dtype == torch.bfloat16
        assert counted.moves == counted.waits == []
        with pytest.raises(TypeError, match="no support for that dtype"):
            torch.empty(2, 2, dtype=E4M3).to(gpu.device)


@pytest.mark.parametrize("kind", [RuntimeError, ValueError, TypeError, NotImplementedError, AttributeError])
def test_whatever_a_probe_raises_the_gpu_only_stores(kind, monkeypatch):
    def refuse(*_, **__):
        raise kind("no kernel image")

    with pretended(RTX_40) as gpu:
        monkeypatch.setattr(torch, "_scaled_mm", refuse)
        found = ability(gpu.device)
        assert found.product is None and "no kernel image" in found.why
        assert make(gpu)(gpu.empty(ROWS, INPUTS)).shape == (ROWS, OUTPUTS)


def test_a_product_that_fails_late_leaves_its_own_gpu_storing(monkeypatch, caplog):
    def refuse(*_, **__):
        raise RuntimeError("no kernel image")

    with pretended(RTX_40_ON_WINDOWS) as gpu:
        linear, x = make(gpu), gpu.empty(2, ROWS, INPUTS)
        assert ability(gpu.device).product is Product.TENSOR
        monkeypatch.setattr(torch, "_scaled_mm", refuse)
        assert linear(x).shape == linear(x).shape == (2, ROWS, OUTPUTS)
        assert ability(gpu.device).product is None
    assert sum("no kernel image" in record.getMessage() for record in caplog.records) == 1


def test_the_pretended_gpu_refuses_what_cuda_refuses():
    with pretended(HOPPER) as gpu:
        left, right = gpu.empty(32, 64, dtype=E4M3), gpu.empty(48, 64, dtype=E4M3).t()
        one, by_row = gpu.empty(), (gpu.empty(32, 1), gpu.empty(1, 48))
        bias = gpu.empty(48, dtype=torch.bfloat16)
        bf16 = {"out_dtype": torch.bfloat16}
        check_scaled_mm(HOPPER, left, right, one, one, bias, **bf16)
        check_scaled_mm(HOPPER, left, right, *by_row, bias, **bf16)
        odd = gpu.empty(49, 64, dtype=E4M3)
        for why, arguments, options in [
            ("compute capability", (RTX_20, left, right, one, one), bf16),
            ("not compiled", (RTX_40_ON_WINDOWS, left, right, *by_row), bf16),
            ("column-major", (HOPPER, left, gpu.empty(64, 48, dtype=E4M3), one, one), bf16),
            ("row-major", (HOPPER, gpu.empty(64, 32, dtype=E4M3).t(), right, one, one), bf16),
            ("multiples of 16", (HOPPER, left, odd.t(), one, one), bf16),
            ("e5m2", (HOPPER, left.view(E5M2), right.view(E5M2), one, one), bf16),
            ("row-wise scales", (HOPPER, left, right, by_row[0], one), bf16),
            ("not contiguous", (HOPPER, left, right, by_row[0], gpu.empty(1, 1).expand(1, 48)), bf16),
            ("only bf16", (HOPPER, left, right, *by_row), {"out_dtype": torch.float32}),
            ("only e4m3", (HOPPER, left.view(E5M2), right, *by_row), bf16),
            ("to float32", (HOPPER, left, right, one, one, bias), {"out_dtype": torch.float32}),
            ("bias of torch.float32", (HOPPER, left, right, one, one, bias.float()), bf16),
            ("scale on cpu", (HOPPER, left, right, torch.ones(()), one), bf16),
        ]:
            with pytest.raises(RuntimeError, match=why):
                check_scaled_mm(*arguments, **options)


def test_kernels_bytes_memory_moves_and_reads_are_counted():
    with pretended(HOPPER) as gpu:
        x = gpu.empty(1000, 1000, dtype=torch.bfloat16)
        with gpu.counting() as counted:
            wide = x.float()
            wide.add_(gpu.empty(1000, 1).expand(1000, 1000))
            view = wide[10:20].view(-1, 100).t()
        assert [kernel.name for kernel in counted.kernels] == ["_to_copy", "add_"]
        assert counted.bytes == 2_000_000 + 4_000_000 + (4_000_000 + 4_000) + 4_000_000
        assert counted.peak == 4_004_000 and view.shape == (100, 100)
        del wide, view
        with gpu.counting() as counted:
            for _ in range(3):
                x.float()
        assert counted.peak == 4_000_000
        with gpu.counting() as counted:
            moved = torch.empty(10).to(gpu.device)
            torch.empty(10).to(gpu.device, non_blocking=True)
            assert moved.sum().item() == 1 and moved[:2].tolist() == [1, 1] and bool((moved == 0).all())
            moved.cpu()
        assert [(move.to_device, move.bytes, move.blocking) for move in counted.moves] == [
            (True, 40, True),
            (True, 40, False),
            (False, 40, True),
        ]
        assert len(counted.waits) == 4


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_a_16_bit_weight_is_quantised_on_every_gpu_without_being_read_back(card):
    with pretended(card) as gpu, gpu.counting() as counted:
        quantised, scale = quantise_rows(gpu.empty(OUTPUTS, INPUTS, dtype=torch.bfloat16))
    assert (quantised.dtype, quantised.shape, scale.shape) == (E4M3, (OUTPUTS, INPUTS), (OUTPUTS, 1))
    assert counted.moves == counted.waits == []


@pytest.mark.parametrize("product", Product)
def test_a_picture_is_multiplied_by_itself_whatever_is_in_its_batch(product):
    with pretended(HOPPER) as gpu:
        x = gpu.empty(3, ROWS, INPUTS, dtype=torch.bfloat16)
        linear = make(gpu, lora=False)
        rows = quantise_input(x, product, centred=True)
        with gpu.counting() as counted:
            scaled_mm(x, rows, linear.weight, linear.scale, linear.bias, product)
    # The mean's share and the rest, for each picture.
    assert sum(kernel.name == "_scaled_mm" for kernel in counted.kernels) == 6
