"""Which FP8 product a device has: both forms are right, the choice follows from trying, and a failure is survived."""

import logging

import pytest
import torch
import torch._dynamo  # here, for it remembers torch's functions as they are when it is imported
from kontext_bridge.kontext.errors import UnsupportedDevice
from kontext_bridge.kontext.fp8 import devices, failures
from kontext_bridge.kontext.fp8.compute import Compute, Linear, project
from kontext_bridge.kontext.fp8.devices import Ability, ability
from kontext_bridge.kontext.fp8.formats import E4M3, FORMATS, Product, dequantise, quantise_input
from kontext_bridge.kontext.fp8.products import scaled_mm
from torch.nn import functional

CPU = torch.device("cpu")
REAL = torch._scaled_mm


@pytest.fixture(autouse=True)
def nothing_is_known():
    devices._KNOWN.clear()
    devices._HOLDS.clear()
    yield
    devices._KNOWN.clear()
    devices._HOLDS.clear()


def relative(one, other):
    return ((one.double() - other.double()).norm() / other.double().norm()).item()


def make(by_row=False, n=256, k=512, seed=0):
    g = torch.Generator().manual_seed(seed)
    weight = (torch.randn(n, k, generator=g) * 40).to(E4M3)
    scale = torch.rand(n, generator=g) * 0.01 + 1e-3 if by_row else torch.tensor(0.0037)
    return weight, scale, torch.randn(n, generator=g)


def even(rows=256, k=512):
    return torch.randn(1, rows, k, generator=torch.Generator().manual_seed(1))


def uneven(rows=256, k=512):
    """Rows a thousand times as large as others, which one scale for all of them would round away."""
    sizes = torch.logspace(-2, 2, rows)[None, :, None]
    return even(rows, k) * sizes


def without_row_wise(*arguments, scale_a, scale_b, **options):
    if scale_a.numel() > 1 or scale_b.numel() > 1:
        raise NotImplementedError("_scaled_mm: row-wise is not compiled\nsecond line")
    return REAL(*arguments, scale_a=scale_a, scale_b=scale_b, **options)


def none_at_all(kind):
    def refuse(*_, **__):
        raise kind("no FP8 here")

    return refuse


@pytest.mark.parametrize("by_row", [False, True])
@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_a_tensor_wise_product_is_as_close_as_a_row_wise_one(by_row, centred, bias):
    weight, scale, added = make(by_row)
    added = added if bias else None
    x = even() + 20 if centred else uneven()
    truth = functional.linear(x, dequantise(weight, scale, torch.float32), added)
    # Each row by itself, as an uneven one is seen by what follows.
    strayed = {}
    for product in Product:
        out = scaled_mm(x, quantise_input(x, product, centred=centred), weight, scale, added, product)
        strayed[product] = max(relative(out[0, i], truth[0, i]) for i in range(x.shape[1]))
    assert strayed[Product.TENSOR] < 1.2 * strayed[Product.ROWS] + 2e-3


@pytest.mark.parametrize("centred", [False, True])
def test_tensor_wise_a_picture_does_not_depend_on_which_others_are_in_its_batch(centred):
    weight, scale, bias = make()
    x = even(96).view(3, 32, 512) * torch.tensor([100.0, 1.0, 0.01])[:, None, None]

    def multiplied(x):
        return scaled_mm(x, quantise_input(x, Product.TENSOR, centred=centred), weight, scale, bias, Product.TENSOR)

    for picture in range(3):
        assert torch.equal(multiplied(x)[picture : picture + 1], multiplied(x[picture : picture + 1]))


def test_where_row_wise_is_not_built_the_tensor_wise_product_is_taken(monkeypatch):
    monkeypatch.setattr(torch, "_scaled_mm", without_row_wise)
    found = ability(CPU)
    assert found.product is Product.TENSOR
    assert "row-wise is not compiled" in found.why and "second line" not in found.why
    weight, scale, bias = make()
    linear = Linear(weight, scale, bias, Compute.FP8, centred=True)
    x = even()
    assert relative(linear(x), functional.linear(x, dequantise(weight, scale, x.dtype), bias)) < 4e-2
    assert torch.equal(project(x, linear)[0], linear(x))


@pytest.mark.parametrize("kind", [RuntimeError, ValueError, TypeError, NotImplementedError, AttributeError])
def test_a_device_whose_products_raise_anything_at_all_only_stores(monkeypatch, kind):
    monkeypatch.setattr(torch, "_scaled_mm", none_at_all(kind))
    found = ability(CPU)
    assert found.product is None and "no FP8 here" in found.why
    with pytest.raises(UnsupportedDevice, match=r"no FP8 here.*Set compute to auto or bf16"):
        Linear(*make(), Compute.FP8)(even())


def test_a_torch_without_any_fp8_product_only_stores(monkeypatch):
    monkeypatch.delattr(torch, "_scaled_mm")
    assert ability(CPU).product is None


def test_a_product_that_gives_wrong_numbers_is_not_taken(monkeypatch):
    monkeypatch.setattr(torch, "_scaled_mm", lambda *a, **o: REAL(*a, **o) * 1.5)
    assert ability(CPU).product is None and "wrong numbers" in ability(CPU).why


def test_the_forms_that_layers_take_are_tried_and_not_only_the_smallest(monkeypatch):
    def picky(left, right, *, bias=None, **options):
        if bias is not None and left.shape[1] >= 512:
            raise RuntimeError("no bias")
        return REAL(left, right, bias=bias, **options)

    monkeypatch.setattr(torch, "_scaled_mm", picky)
    assert ability(CPU).product is None


def test_full_memory_is_not_taken_for_a_device_without_fp8(monkeypatch):
    monkeypatch.setattr(torch, "_scaled_mm", none_at_all(torch.OutOfMemoryError))
    with pytest.raises(torch.OutOfMemoryError):
        ability(CPU)
    monkeypatch.setattr(torch, "_scaled_mm", REAL)
    assert ability(CPU).product is Product.ROWS


@pytest.mark.parametrize("kind", [RuntimeError, ValueError, TypeError, NotImplementedError])
def test_a_product_that_fails_later_costs_a_warning_and_not_the_edit(monkeypatch, caplog, kind):
    weight, scale, bias = make()
    arguments = {"centred": True, "demanded": False}
    assert ability(CPU).product is Product.ROWS
    monkeypatch.setattr(torch, "_scaled_mm", none_at_all(kind))
    with caplog.at_level(logging.WARNING):
        out = devices.multiply(even(), weight, scale, bias, Product.ROWS, **arguments)
    assert relative(out, functional.linear(even(), dequantise(weight, scale, torch.float32), bias)) < 1e-5
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1 and "no FP8 here" in warnings[0].getMessage()
    assert ability(CPU).product is None and "has failed" in ability(CPU).why


def test_a_product_that_fails_later_is_an_error_where_fp8_was_demanded(monkeypatch):
    linear = Linear(*make(), Compute.FP8)
    linear(even())
    monkeypatch.setattr(torch, "_scaled_mm", none_at_all(RuntimeError))
    with pytest.raises(UnsupportedDevice, match="has failed"):
        linear(even())


def test_full_memory_or_a_wrong_input_do_not_take_fp8_away(monkeypatch):
    weight, scale, bias = make()
    arguments = {"centred": False, "demanded": False}
    monkeypatch.setattr(torch, "_scaled_mm", none_at_all(torch.OutOfMemoryError))
    devices._KNOWN[CPU] = Ability(Product.ROWS, "row-wise")
    with pytest.raises(torch.OutOfMemoryError):
        devices.multiply(even(), weight, scale, bias, Product.ROWS, **arguments)
    monkeypatch.setattr(torch, "_scaled_mm", REAL)
    with pytest.raises(RuntimeError):
        devices.multiply(even(k=256), weight, scale, bias, Product.ROWS, **arguments)
    assert ability(CPU).product is Product.ROWS


# What a GPU itself reports; the rest of such a text names pages and variables.
CANNOT = ["no kernel image is available for execution on the device", "operation not supported", "invalid argument"]
BROKEN = ["an illegal memory access was encountered", "unspecified launch failure", "out of memory"]


def reported(what):
    def report(*_, **__):
        raise torch.AcceleratorError(f"CUDA error: {what}\nCompile with `TORCH_USE_CUDA_DSA` to enable assertions.")

    return report


@pytest.mark.parametrize("what", CANNOT)
def test_a_gpu_that_itself_reports_what_its_torch_was_built_without_only_stores(monkeypatch, what):
    monkeypatch.setattr(torch, "_scaled_mm", reported(what))
    assert ability(CPU).product is None and what in ability(CPU).why
    devices._KNOWN[CPU] = Ability(Product.ROWS, "row-wise")
    weight, scale, bias = make()
    out = devices.multiply(even(), weight, scale, bias, Product.ROWS, centred=True, demanded=False)
    assert relative(out, functional.linear(even(), dequantise(weight, scale, torch.float32), bias)) < 1e-5
    assert ability(CPU).product is None and "has failed" in ability(CPU).why


@pytest.mark.parametrize("what", BROKEN)
def test_a_gpu_that_has_failed_as_a_whole_is_not_said_to_lack_fp8(monkeypatch, what):
    monkeypatch.setattr(torch, "_scaled_mm", reported(what))
    with pytest.raises(torch.AcceleratorError):
        ability(CPU)
    assert CPU not in devices._KNOWN
    devices._KNOWN[CPU] = Ability(Product.ROWS, "row-wise")
    with pytest.raises(torch.AcceleratorError):
        devices.multiply(even(), *make(), Product.ROWS, centred=True, demanded=False)
    assert ability(CPU).product is Product.ROWS


@pytest.mark.parametrize(
    "text",
    [
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasLtCreate(&handle)`",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes.",
    ],
)
def test_full_memory_by_another_name_does_not_take_fp8_away(monkeypatch, text):
    def full(*_, **__):
        raise RuntimeError(text)

    monkeypatch.setattr(torch, "_scaled_mm", full)
    with pytest.raises(RuntimeError):
        ability(CPU)
    assert CPU not in devices._KNOWN


def test_a_product_that_fails_on_one_device_is_still_taken_on_another(monkeypatch, caplog):
    other = torch.device("meta")
    devices._KNOWN.update({CPU: Ability(Product.ROWS, "row-wise"), other: Ability(Product.ROWS, "row-wise")})
    there = []

    def fails_here(left, *arguments, **options):
        if left.device == CPU:
            raise RuntimeError("no FP8 here")
        there.append(left.shape)
        return REAL(left, *arguments, **options)

    monkeypatch.setattr(torch, "_scaled_mm", fails_here)
    weight, scale, bias = make()
    inputs = (even(), weight, scale, bias)
    with caplog.at_level(logging.WARNING):
        for device in CPU, other, CPU, other:
            product = ability(device).product
            if product is not None:
                moved = (tensor.to(device) for tensor in inputs)
                devices.multiply(*moved, product, centred=False, demanded=False)
    assert ability(CPU).product is None and ability(other).product is Product.ROWS
    assert len(there) == 2 and sum("no FP8 here" in record.getMessage() for record in caplog.records) == 1


def test_a_clearly_faster_product_is_taken_and_a_nearly_alike_one_is_not():
    faster, alike = (1.0e-3, 0.5e-3), (1.0e-3, 0.95e-3)
    assert devices._faster(faster, faster).product is Product.TENSOR
    assert devices._faster(alike, alike).product is Product.ROWS
    assert "1.00 ms" in devices._faster(faster, faster).why


def test_each_kind_of_layer_takes_the_product_that_is_the_faster_for_it(monkeypatch):
    # As an H100 has it: behind a layer norm tensor-wise is the faster, and elsewhere the slower.
    seconds = {False: (0.5e-3, 0.7e-3), True: (0.7e-3, 0.6e-3)}
    monkeypatch.setattr(devices, "_seconds", lambda _, product, c: seconds[c][product is Product.TENSOR])
    found = timed(monkeypatch)
    assert found.of(centred=False) is Product.ROWS and found.of(centred=True) is Product.TENSOR
    assert found.required(centred=True) is Product.TENSOR
    assert found.why.startswith("row-wise, and tensor-wise behind layer norms: a layer takes 0.50 ms row-wise")

    devices._KNOWN[CPU] = found
    taken = []
    real = devices.scaled_mm
    monkeypatch.setattr(devices, "scaled_mm", lambda *given: taken.append(given[-1]) or real(*given))
    for centred in False, True:
        linear = Linear(*make(), Compute.FP8, centred=centred)
        x = even() + 20 * centred
        assert relative(linear(x), functional.linear(x, dequantise(*make()[:2], x.dtype), make()[2])) < 4e-2
        assert torch.equal(project(x, linear)[0], linear(x))
    assert taken == [Product.ROWS] * 3 + [Product.TENSOR] * 3


def test_a_product_that_fails_for_one_kind_of_layer_is_taken_for_neither():
    good, fails_by_row, fails_by_tensor = (1.0, 2.0), (float("inf"), 1.0), (1.0, float("inf"))
    for elsewhere, behind_norm in (good, fails_by_row), (fails_by_row, good):
        found = devices._faster(elsewhere, behind_norm)
        assert {found.of(centred=False), found.of(centred=True)} == {Product.TENSOR}
    found = devices._faster((2.0, 1.0), fails_by_tensor)
    assert {found.of(centred=False), found.of(centred=True)} == {Product.ROWS}


def test_products_are_timed_on_layers_that_take_a_gpu_longer_than_their_launch():
    for n, k in devices._LAYERS.values():
        assert 2 * devices._ROWS * n * k > 3e11


def pretend(monkeypatch, capability, version="2.13.0", refused=(), seconds=(1.0, 0.5)):
    """A CUDA device of this kind; gives what is chosen on it."""
    monkeypatch.setattr(devices, "_seconds", lambda _, product, __: seconds[product is Product.TENSOR])
    return timed(monkeypatch, capability, version, refused)


def timed(monkeypatch, capability=(9, 0), version="2.13.0", refused=()):
    """The same, with products timed as they are."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA Pretended")
    monkeypatch.setattr(torch, "__version__", version)
    monkeypatch.setattr(devices, "_refusal", lambda _, product: "not built" if product in refused else None)
    return ability(torch.device("cuda", 0))


@pytest.mark.parametrize("capability", [(7, 5), (8, 6)])
def test_gpus_before_ada_are_said_to_have_none_and_are_not_tried(monkeypatch, capability):
    found = pretend(monkeypatch, capability)
    assert found.product is None and "RTX 40" in found.why and "NVIDIA Pretended" in found.why


@pytest.mark.parametrize("capability", [(8, 9), (9, 0), (12, 0)])
def test_on_windows_an_rtx_40_is_not_said_to_lack_fp8(monkeypatch, capability):
    found = pretend(monkeypatch, capability, refused=[Product.ROWS])
    assert found.product is Product.TENSOR and "RTX 40" not in found.why


def test_where_neither_product_works_the_text_does_not_blame_the_gpu(monkeypatch):
    found = pretend(monkeypatch, (8, 9), refused=list(Product))
    assert found.product is None and "RTX 40" not in found.why and "not built" in found.why


def test_where_both_work_the_clock_decides_unless_row_wise_is_known_to_be_wrong(monkeypatch):
    assert pretend(monkeypatch, (9, 0), seconds=(0.5, 1.0)).product is Product.ROWS
    devices._KNOWN.clear()
    assert pretend(monkeypatch, (9, 0)).product is Product.TENSOR
    devices._KNOWN.clear()
    assert pretend(monkeypatch, (8, 9), version="2.11.1+cu128", seconds=(0.5, 1.0)).product is Product.TENSOR
    devices._KNOWN.clear()
    assert pretend(monkeypatch, (8, 9), version="2.12.0a0+git1", seconds=(0.5, 1.0)).product is Product.ROWS


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("full"), RuntimeError("CUBLAS_STATUS_ALLOC_FAILED"), ValueError("too many rows")]
)
def test_products_that_cannot_be_timed_end_no_load(monkeypatch, error):
    def untimed(*_):
        raise error

    monkeypatch.setattr(devices, "_seconds", untimed)
    found = timed(monkeypatch)
    assert found.product is Product.ROWS and "inf" not in found.why


@pytest.mark.parametrize(("failing", "taken"), [(Product.ROWS, Product.TENSOR), (Product.TENSOR, Product.ROWS)])
def test_a_product_that_fails_only_at_the_size_of_a_layer_is_not_taken(monkeypatch, failing, taken):
    def seconds(_, product, __):
        if product is failing:
            raise RuntimeError("CUBLAS_STATUS_NOT_SUPPORTED")
        return 1.0

    monkeypatch.setattr(devices, "_seconds", seconds)
    found = timed(monkeypatch)
    assert found.product is taken and "size of a layer" in found.why


def test_a_gpu_that_fails_while_products_are_timed_is_not_hidden(monkeypatch):
    monkeypatch.setattr(devices, "_seconds", reported(BROKEN[0]))
    with pytest.raises(torch.AcceleratorError):
        timed(monkeypatch)


def test_a_torch_without_its_newer_names_for_errors_still_tells_a_refusal_from_full_memory(monkeypatch):
    # Torch 2.4, the last that DirectML has.
    for name in "OutOfMemoryError", "AcceleratorError":
        monkeypatch.delattr(torch, name)
    assert failures.is_about_the_machine(torch.cuda.OutOfMemoryError("full"))
    assert not failures.is_about_the_machine(NotImplementedError("no 8-bit floats"))


def test_a_device_that_cannot_even_keep_fp8_is_known_by_trying(monkeypatch):
    assert devices.holds_fp8(CPU)
    # There is none in this computer, which is told in the same way as a Mac that has no 8-bit floats.
    for kind in "mps", "xpu":
        assert not devices.holds_fp8(torch.device(kind))
    real = torch.Tensor.to

    def as_a_mac(tensor, *arguments, **options):
        if tensor.dtype in FORMATS:
            raise TypeError("Trying to convert Float8_e4m3fn to the MPS backend but it has no support for that dtype.")
        return real(tensor, *arguments, **options)

    devices._HOLDS.clear()
    monkeypatch.setattr(torch.Tensor, "to", as_a_mac)
    assert not devices.holds_fp8(CPU)


def test_a_device_whose_8_bit_floats_are_other_numbers_is_said_to_have_none(monkeypatch):
    real = torch.Tensor.to

    def twice(tensor, *arguments, **options):
        out = real(tensor, *arguments, **options)
        return out * 2 if tensor.dtype in FORMATS and out.dtype not in FORMATS else out

    monkeypatch.setattr(torch.Tensor, "to", twice)
    assert not devices.holds_fp8(CPU)


def test_a_refusal_for_want_of_8_bit_floats_says_what_to_use_instead():
    told = str(devices.no_fp8_there(torch.device("mps"), "kontext.safetensors"))
    assert "'mps'" in told and "kontext.safetensors" in told and "GGUF" in told and "--cpu" in told
    assert told.startswith("The Apple GPU")
    assert str(devices.no_fp8_there(torch.device("privateuseone"), "x")).startswith("DirectML")
    assert str(devices.no_fp8_there(torch.device("hpu"), "x")).startswith("The device 'hpu'")


def test_fp8_weights_that_are_sent_later_to_a_device_without_8_bit_floats_are_refused_and_stay_whole():
    devices._HOLDS[torch.device("meta")] = False
    linear = Linear(*make())
    with pytest.raises(UnsupportedDevice, match="Select Model Device"):
        torch.nn.Sequential(linear).to("meta")
    assert linear.weight.device == linear.scale.device == CPU
    Linear(torch.zeros(4, 4), None, torch.zeros(4)).to("meta")


@pytest.mark.parametrize("product", Product)
@pytest.mark.parametrize("by_row", [False, True])
def test_a_compiler_follows_both_products_without_leaving_its_graph(product, by_row):
    devices._KNOWN[CPU] = Ability(product, "as the test says")
    torch.compiler.reset()
    linear = Linear(*make(by_row), Compute.FP8, centred=True)
    compiled = torch.compile(linear, fullgraph=True, backend="eager", dynamic=True)
    for rows in 256, 96:
        x = even(rows).view(2, rows // 2, 512)
        assert torch.equal(compiled(x), linear(x))
