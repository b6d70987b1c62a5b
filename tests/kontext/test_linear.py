"""The FP8 linear: its modes agree with the numbers the bytes stand for, and it never touches the bytes."""

import pytest
import torch
from alone import succeeds_alone
from kontext_bridge.kontext.errors import NonFinite, UnsupportedDevice
from kontext_bridge.kontext.fp8 import formats
from kontext_bridge.kontext.fp8.compute import Branch, Compute, Linear, multiplies_fp8_rows, project, require_finite
from kontext_bridge.kontext.fp8.formats import (
    E4M3,
    E5M2,
    Product,
    dequantise,
    is_finite,
    quantise_input,
    quantise_rows,
    widen,
)
from kontext_bridge.kontext.fp8.products import scaled_mm, widened
from kontext_bridge.kontext.fp8.quantising import MAX_E4M3
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode


def relative(a, b):
    return ((a - b).norm() / b.norm()).item()


def make(n=48, k=64, by_row=False, dtype=E4M3, compute=Compute.STORAGE, bias=True, seed=0):
    g = torch.Generator().manual_seed(seed)
    weight = (torch.randn(n, k, generator=g) * 40).to(dtype)
    scale = torch.rand(n, generator=g) * 0.01 + 1e-3 if by_row else torch.tensor(0.0037)
    return Linear(weight, scale, torch.randn(n, generator=g) if bias else None, compute)


def expected(linear, x):
    return functional.linear(x, dequantise(linear.weight, linear.scale, x.dtype), linear.bias)


@pytest.mark.parametrize("dtype", [E4M3, E5M2])
@pytest.mark.parametrize("by_row", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("compute", [Compute.AUTO, Compute.STORAGE, Compute.REFERENCE])
def test_on_a_cpu_every_exact_mode_is_the_dequantised_layer(dtype, by_row, bias, compute):
    linear = make(by_row=by_row, dtype=dtype, compute=compute, bias=bias)
    x = torch.randn(2, 5, 64)
    assert relative(linear(x), expected(linear, x)) < 1e-6
    assert relative(linear.exact(x[0]), expected(linear, x[0])) < 1e-6


def test_the_exact_product_does_not_depend_on_its_chunks(monkeypatch):
    linear = make(n=50)
    x = torch.randn(3, 64)
    whole = linear.exact(x)
    monkeypatch.setattr("kontext_bridge.kontext.fp8.compute._EXACT_CHUNK", 64 * 7)
    assert relative(linear.exact(x), whole) < 1e-6


@pytest.mark.parametrize("by_row", [False, True])
def test_fp8_products_differ_only_by_the_rounding_of_the_input(by_row):
    linear = make(by_row=by_row, compute=Compute.FP8)
    x = torch.randn(2, 5, 64)
    q, scale = quantise_rows(x.reshape(-1, 64))
    rounded = (q.float() * scale).view(2, 5, 64)
    assert relative(linear(x), expected(linear, rounded)) < 4e-3  # bfloat16 output
    assert 5e-3 < relative(linear(x), expected(linear, x)) < 5e-2


def test_what_the_rows_after_a_layer_norm_have_in_common_is_not_rounded_to_fp8():
    linear, shift = make(compute=Compute.FP8), torch.randn(64) * 20
    linear.centred = True
    x = torch.randn(32, 64)
    apart = (linear(x + shift) - expected(linear, x + shift)).norm() / (linear(x) - expected(linear, x)).norm()
    assert apart < 5, "rounding all of it to FP8 would make it twenty"
    assert relative(linear(shift[None]), expected(linear, shift[None])) < 4e-3, "a single row is all mean"


@pytest.mark.parametrize("product", Product)
def test_the_mean_of_a_large_picture_is_close_enough_from_some_of_its_rows(product, monkeypatch):
    linear, shift = make(n=32, k=128), torch.randn(128) * 20
    # Neighbours are alike, as they are in a picture, and the first rows are a text's.
    size = torch.linspace(0.5, 2, 4608)[:, None]
    x = (torch.randn(576, 128).repeat_interleave(8, 0) * size + shift)[None].to(torch.bfloat16)
    truth = expected(linear, x.float())

    def strayed():
        """How far the rows are from the truth: each by itself, and with what is the same in all."""
        rows = quantise_input(x, product, centred=True)
        apart = scaled_mm(x, rows, linear.weight, linear.scale, linear.bias, product).float() - truth
        own = apart - apart.mean(1, keepdim=True)
        return (own.norm() / truth.norm()).item(), (apart.norm() / truth.norm()).item()

    own, whole = strayed()
    monkeypatch.setattr(formats, "_MANY", 10**9)
    # What is the same in all is how the mean itself is rounded: a matter of luck, by a fifth more or less.
    assert own < 1.01 * strayed()[0] and whole < 5e-3


@pytest.mark.parametrize("centred", [False, True])
def test_a_picture_does_not_depend_on_which_others_are_in_its_batch(centred):
    linear = make(compute=Compute.FP8)
    linear.centred = centred
    x = torch.randn(3, 32, 64) + torch.tensor([20.0, -3.0, 0.1])[:, None, None]
    together, projected = linear(x), project(x, linear)[0]
    for picture in range(3):
        alone = linear(x[picture : picture + 1])
        assert torch.equal(together[picture : picture + 1], alone)
        assert torch.equal(projected[picture : picture + 1], alone)


def test_a_hundredfold_outlier_row_does_not_blur_the_others():
    linear = make(compute=Compute.FP8)
    x = torch.randn(8, 64)
    alone = linear(x)
    x[3] *= 1e4
    together = linear(x)
    assert torch.equal(alone[:3], together[:3]) and torch.equal(alone[4:], together[4:])


def test_rows_of_zeros_and_of_huge_numbers_stay_finite():
    rows = torch.cat([torch.zeros(1, 32), torch.full((1, 32), 3e38), torch.full((1, 32), 1e-30)])
    q, scale = quantise_rows(rows)
    assert is_finite(q) and bool(torch.isfinite(scale).all())
    assert (q[0].float() == 0).all()
    assert (q[1].float() == MAX_E4M3).all()


def test_fp8_products_are_not_tried_where_cuda_would_refuse_them():
    x = torch.randn(4, 64)
    assert make(compute=Compute.FP8).multiplies_fp8(x)
    assert not make(n=50, compute=Compute.FP8).multiplies_fp8(x)
    assert not make(k=72, compute=Compute.FP8).multiplies_fp8(torch.randn(4, 72))
    assert not make(dtype=E5M2, compute=Compute.FP8).multiplies_fp8(x)
    assert not make(compute=Compute.AUTO).multiplies_fp8(x)


def test_a_device_without_fp8_says_so_instead_of_failing_in_a_kernel():
    assert not multiplies_fp8_rows(torch.device("meta"))
    linear = make(compute=Compute.FP8).to("meta")
    with pytest.raises(UnsupportedDevice, match="RTX 40"):
        linear(torch.empty(2, 64, device="meta"))


def test_half_precision_does_not_overflow_on_unscaled_products():
    linear = make(n=16, k=1024)
    linear.weight = torch.full((16, 1024), 400.0).to(E4M3)
    x = torch.full((1, 1024), 1.0, dtype=torch.float16)
    out = linear(x)
    assert bool(torch.isfinite(out).all())
    assert relative(out.float(), expected(linear, x.float())) < 1e-2


@pytest.mark.parametrize("cast", [torch.bfloat16, torch.float16, torch.float64])
def test_casting_a_model_leaves_fp8_bytes_and_scales_alone(cast):
    linear = make()
    linear.branches["l"] = [Branch(torch.randn(2, 64), torch.randn(48, 2), 0, 1.0)]
    before = linear.weight.view(torch.uint8).clone()
    linear.to(cast)
    assert linear.weight.dtype == E4M3 and linear.scale.dtype == torch.float32
    assert torch.equal(linear.weight.view(torch.uint8), before)
    assert linear.bias.dtype == cast and linear.branches["l"][0].down.dtype == cast


def test_one_quantisation_serves_all_layers_that_share_an_input():
    first, second, wide = make(compute=Compute.FP8), make(seed=1, compute=Compute.FP8), make(seed=2)
    x = torch.randn(2, 5, 64)
    for got, linear in zip(project(x, first, wide, second), (first, wide, second), strict=True):
        assert torch.equal(got, linear(x))


@pytest.mark.parametrize("compute", [Compute.FP8, Compute.STORAGE])
def test_a_lora_branch_adds_its_product_to_its_rows_only(compute):
    linear = make(compute=compute)
    x = torch.randn(3, 64)
    plain = linear(x)
    down, up = torch.randn(4, 64), torch.randn(16, 4)
    linear.branches["style"] = [Branch(down, up, 16, 0.5)]
    with_branch = linear(x)
    assert relative(with_branch[:, 16:32] - plain[:, 16:32], 0.5 * x @ down.T @ up.T) < 1e-5
    assert torch.equal(with_branch[:, :16], plain[:, :16]) and torch.equal(with_branch[:, 32:], plain[:, 32:])
    assert relative(linear.exact(x)[:, 16:32] - make().exact(x)[:, 16:32], 0.5 * x @ down.T @ up.T) < 1e-5
    del linear.branches["style"]
    assert torch.equal(linear(x), plain)


def test_a_layer_that_is_not_fp8_computes_what_torch_does():
    weight, bias, x = torch.randn(6, 5), torch.randn(6), torch.randn(2, 5)
    assert torch.equal(Linear(weight, None, bias)(x), functional.linear(x, weight, bias))


@pytest.mark.parametrize("dtype", [E4M3, E5M2])
def test_every_nonfinite_byte_is_found_and_no_other(dtype):
    for byte in range(256):
        tensor = torch.tensor([0, byte, 1], dtype=torch.uint8).view(dtype)
        assert is_finite(tensor) == bool(torch.isfinite(tensor.float()).all()), byte


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("fp8", [E4M3, E5M2])
def test_widening_gives_every_number_exactly(fp8, dtype):
    every = torch.arange(256, dtype=torch.uint8).view(fp8)
    finite = every[torch.isfinite(every.float())]
    assert torch.equal(widen(finite, dtype).double(), finite.to(torch.float64))


def test_a_damaged_weight_is_named():
    with pytest.raises(NonFinite, match=r"double_blocks\.3"):
        require_finite(torch.tensor([1.0, float("nan")]), "double_blocks.3")


def test_the_core_is_free_of_diffusers_and_comfyui():
    code = (
        "import sys; from kontext_bridge.kontext.checkpoint import reading;"
        "from kontext_bridge.kontext.standalone import lora, mount, sampler, text, vae;"
        "heavy = {'diffusers', 'transformers', 'comfy'} & set(sys.modules); sys.exit(repr(heavy) if heavy else 0)"
    )
    succeeds_alone(code)


class Counted(TorchDispatchMode):
    """The names of all operations, the bytes of the largest result, and which of them round a scale to 16 bits."""

    def __init__(self):
        super().__init__()
        self.names = []
        self.most = 0
        self.rounds = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        self.names.append(name)
        out = function(*args, **(kwargs or {}))
        self.most = max(self.most, out.nbytes)
        numbers = [arg for arg in args if isinstance(arg, torch.Tensor) and arg.dtype == torch.float32 and not arg.ndim]
        if name in ("mul", "mul_", "div", "addcmul") and numbers and out.itemsize == 2:
            self.rounds.append(name)
        return out


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_away_from_a_cpu_scale_and_bias_are_no_passes_of_their_own(dtype):
    linear = make().to("meta").to(dtype)
    with Counted() as counted:
        assert linear(torch.empty(2, 5, 64, device="meta", dtype=dtype)).shape == (2, 5, 48)
    assert "addmm" in counted.names and not {"mul_", "add_", "mul", "add"} & set(counted.names)
    assert "_local_scalar_dense" not in counted.names, "reading the scale makes the computer wait for the GPU"


def test_away_from_a_cpu_a_scale_a_row_and_the_bias_are_one_pass():
    linear = make(by_row=True).to("meta").to(torch.bfloat16)
    with Counted() as counted:
        linear(torch.empty(5, 64, device="meta", dtype=torch.bfloat16))
    assert counted.names.count("addcmul") == 1 and not {"mul_", "add_", "mul", "add"} & set(counted.names)


@pytest.mark.parametrize("product", Product)
@pytest.mark.parametrize("by_row", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_what_is_computed_away_from_a_cpu_is_the_same(monkeypatch, product, by_row, bias, dtype):
    linear = make(by_row=by_row, bias=bias)
    x = torch.randn(32, 64).to(dtype)
    inputs = (linear.weight, linear.scale, linear.bias)
    rows = quantise_input(x, product, centred=True)
    stored, multiplied = widened(x, *inputs), scaled_mm(x, rows, *inputs, product)
    monkeypatch.setattr(torch.Tensor, "is_cpu", property(lambda _: False))
    assert relative(widened(x, *inputs, number=linear.number).float(), stored.float()) < 4e-3
    assert relative(scaled_mm(x, rows, *inputs, product).float(), multiplied.float()) < 4e-3


@pytest.mark.parametrize("fp8", [E4M3, E5M2])
@pytest.mark.parametrize("by_row", [False, True])
@pytest.mark.parametrize("on_cpu", [False, True])
def test_half_floats_are_what_the_weight_in_32_bits_would_give(monkeypatch, fp8, by_row, on_cpu):
    linear = make(by_row=by_row, dtype=fp8)
    x = torch.randn(3, 64).half()
    full = functional.linear(x, dequantise(linear.weight, linear.scale, torch.float16), linear.bias.half())
    if not on_cpu:
        monkeypatch.setattr(torch.Tensor, "is_cpu", property(lambda _: False))
    assert torch.equal(linear(x), full)


def test_half_floats_take_no_more_than_two_bytes_a_number_of_a_weight():
    linear = make(n=64, k=512).to("meta").half()
    with Counted() as counted:
        linear(torch.empty(5, 512, device="meta", dtype=torch.float16))
    assert counted.most <= 2 * 64 * 512


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bias", [False, True])
def test_a_scale_without_dimensions_that_a_gpu_would_round_is_noticed(dtype, bias):
    linear = make(bias=bias).to("meta").to(dtype)
    x = torch.empty(5, 64, device="meta", dtype=dtype)
    with Counted() as counted:
        widened(x, linear.weight, linear.scale, linear.bias)
    assert not counted.rounds


def test_weight_and_scale_must_belong_together():
    with pytest.raises(ValueError, match="do not belong together"):
        Linear(torch.zeros(4, 4).to(E4M3))
    with pytest.raises(ValueError, match="fits no weight"):
        Linear(torch.zeros(4, 4).to(E4M3), torch.ones(4, 1))
