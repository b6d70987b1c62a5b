"""Rows into FP8: each way gives the same bits, a device is tried before one is relied on, and a failure is survived."""

import importlib.util
import logging
import sys
import types

import pytest
import torch
from kontext_bridge.kontext.fp8 import devices, quantising
from kontext_bridge.kontext.fp8.formats import E4M3, Product, quantise_input, quantise_rows
from kontext_bridge.kontext.fp8.quantising import join_on, quantised
from torch._dynamo.testing import CompileCounter
from torch.utils._python_dispatch import TorchDispatchMode

CPU = torch.device("cpu")
TYPES = (torch.bfloat16, torch.float16, torch.float32)
SHAPES = [(1, 16), (2, 48), (7, 512), (130, 3072), (33, 12288), (5, 15360)]


@pytest.fixture(autouse=True)
def nothing_is_known():
    known = (quantising._WRITES, quantising._JOINS, quantising._compiled, devices._KNOWN)
    for one in known:
        one.clear()
    yield
    for one in known:
        one.clear()


def bits(pair):
    return [tensor.contiguous().view(torch.uint8) for tensor in pair]


def alike(one, other):
    return all(torch.equal(a, b) for a, b in zip(bits(one), bits(other), strict=True))


def uneven(rows, columns, dtype=torch.bfloat16, seed=0):
    x = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    x = x * torch.logspace(-4, 3, rows)[:, None]
    x[0] = 0
    return x.to(dtype)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("apart", [False, True])
def test_a_division_that_writes_fp8_gives_the_plain_bits(dtype, together, apart):
    for number, shape in enumerate(SHAPES):
        rows = uneven(*shape, dtype, seed=number)
        mean = uneven(2, shape[1], dtype, seed=number)[1:] if apart else None
        assert alike(quantising._written(rows, mean, together), quantising._plain(rows, mean, together)), shape
    assert quantising._WRITES == {}
    assert alike(quantised(rows, mean, together=together), quantising._plain(rows, mean, together))
    assert quantising._WRITES == {CPU: True}


def test_both_formats_are_written_with_the_bits_of_a_cast():
    x = torch.cat([uneven(64, 512, torch.float32).flatten(), torch.tensor([448.0, 449.0, 463.9, 57344.0])])
    x = x.clamp(-57344, 57344)
    for kind in E4M3, torch.float8_e5m2:
        written = torch.div(x, torch.ones(1), out=torch.empty_like(x, dtype=kind))
        assert torch.equal(written.view(torch.uint8), x.to(kind).view(torch.uint8))


class Biggest(TorchDispatchMode):
    """The most bytes of one tensor that any operation makes."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        tensors = out if isinstance(out, (tuple, list)) else [out]
        self.bytes = max([self.bytes, *(tensor.nbytes for tensor in tensors if isinstance(tensor, torch.Tensor))])
        return out


@pytest.mark.parametrize("product", Product)
@pytest.mark.parametrize("centred", [False, True])
def test_no_32_bit_copy_of_the_rows_is_made(product, centred):
    x = uneven(64, 3072)[None]
    quantise_input(x, product, centred=centred)
    with Biggest() as biggest:
        quantise_input(x, product, centred=centred)
    assert biggest.bytes <= x.nbytes


def test_one_scale_for_all_rows_is_divided_by_in_32_bits():
    x = uneven(64, 512)
    rest, scale = quantised(x, x[:1] * 0, together=True)
    exact = (x.double() / scale.double()).float().to(E4M3)
    assert torch.equal(rest.view(torch.uint8), exact.view(torch.uint8)), "the scale was rounded to bfloat16 first"


def test_a_device_whose_division_writes_something_else_is_not_relied_on(monkeypatch):
    real = torch.div

    def rounds_otherwise(*arguments, out=None, **options):
        if out is not None and out.dtype == E4M3:
            return out.copy_(real(*arguments, **options).mul(1.01).to(E4M3))
        return real(*arguments, out=out, **options) if out is not None else real(*arguments, **options)

    rows = uneven(8, 64)
    plain = quantising._plain(rows, None, False)
    monkeypatch.setattr(torch, "div", rounds_otherwise)
    assert alike(quantise_rows(rows), plain)
    assert quantising._WRITES == {CPU: False}


@pytest.mark.parametrize("kind", [RuntimeError, ValueError, TypeError, NotImplementedError])
def test_a_device_whose_division_does_not_write_fp8_is_not_relied_on(monkeypatch, kind):
    def refuses(*_, **__):
        raise kind("result type Float can't be cast to the desired output type")

    rows = uneven(8, 64)
    plain = quantising._plain(rows, None, False)
    monkeypatch.setattr(torch, "div", refuses)
    assert alike(quantise_rows(rows), plain)


def test_full_memory_is_not_taken_for_a_division_that_cannot(monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(torch, "div", full)
    with pytest.raises(torch.OutOfMemoryError):
        quantise_rows(uneven(8, 64))
    assert quantising._WRITES == {}


@pytest.fixture
def triton(monkeypatch):
    """A compiler that joins kernels, pretended: it compiles nothing and counts what it is asked for."""
    counter, real = CompileCounter(), torch.compile
    torch.compiler.reset()
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: True)
    monkeypatch.setattr(quantising, "_USUAL", (64, 48))

    def compiled(function, *, options, **others):
        assert options == quantising._AS_TORCH_ROUNDS
        return real(function, backend=counter, **others)

    monkeypatch.setattr(torch, "compile", compiled)
    monkeypatch.setattr(quantising, "_seconds", lambda _, way: 0.5 if way is quantising._joined else 1.0)
    return counter


def test_memory_that_is_full_while_one_kernel_is_tried_ends_no_load_and_settles_nothing(triton, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as crowded:
        crowded.setattr(quantising, "_slower", full)
        join_on(CPU)
    assert quantising._JOINS == {}
    join_on(CPU)
    assert quantising._JOINS == {CPU: True}


@pytest.mark.parametrize("kind", [RuntimeError, torch.AcceleratorError])
def test_full_memory_that_a_compiler_has_wrapped_ends_no_load_and_settles_nothing(triton, monkeypatch, kind):
    def full(*_):
        raise kind("backend='inductor' raised:\nOutOfMemoryError: CUDA out of memory. Tried to allocate 50.00 MiB")

    with monkeypatch.context() as crowded:
        crowded.setattr(quantising, "_joined", full)
        join_on(CPU)
    assert quantising._JOINS == {}
    join_on(CPU)
    assert quantising._JOINS == {CPU: True}


def test_joined_is_compiled_once_for_all_sizes_references_and_batches(triton):
    join_on(CPU)
    assert quantising._JOINS == {CPU: True}
    before = triton.frame_count
    assert before == 3
    with torch.inference_mode():
        for batch, rows, columns in (
            (1, 4096, 64),
            (1, 8704, 48),
            (2, 300, 3072),
            (3, 17, 16),
            (1, 2, 15360),
            (1, 1, 64),
        ):
            x = uneven(batch * rows, columns).view(batch, rows, columns)
            for product in Product:
                for centred in False, True:
                    quantise_input(x, product, centred=centred)
    assert triton.frame_count == before, "a picture of another size compiles again"


def test_a_picture_alone_and_in_a_batch_are_joined_alike(triton):
    join_on(CPU)
    x = uneven(96, 512).view(3, 32, 512)
    for product in Product:
        for centred in False, True:
            together = quantise_input(x, product, centred=centred)
            for picture, rows in enumerate(together):
                (alone,) = quantise_input(x[picture : picture + 1].clone(), product, centred=centred)
                assert alike((rows.quantised, rows.scale[None]), (alone.quantised, alone.scale[None]))


def test_without_triton_nothing_is_compiled_and_nothing_is_warned_of(monkeypatch, caplog):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(torch, "compile", lambda *_, **__: pytest.fail("compiled"))
    with caplog.at_level(logging.INFO):
        join_on(CPU)
        join_on(CPU)
    assert quantising._JOINS == {CPU: False}
    assert [record.levelno for record in caplog.records] == [logging.INFO]
    assert "no Triton" in caplog.text


def test_a_module_in_tritons_place_that_another_pack_has_made_costs_nothing(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", types.ModuleType("triton"))
    monkeypatch.setattr(torch, "compile", lambda *_, **__: pytest.fail("compiled"))
    join_on(CPU)
    assert quantising._JOINS == {CPU: False}


@pytest.mark.parametrize("kind", [RuntimeError, FileNotFoundError, ImportError, KeyError])
def test_a_compiler_that_fails_when_it_is_tried_costs_nothing(monkeypatch, kind):
    def fails(*_, **__):
        raise kind("Failed to find C compiler")

    monkeypatch.setattr(importlib.util, "find_spec", lambda _: True)
    monkeypatch.setattr(torch, "compile", fails)
    join_on(CPU)
    assert quantising._JOINS == {CPU: False}
    assert alike(quantise_rows(uneven(8, 64)), quantising._plain(uneven(8, 64), None, False))


def test_a_compiler_that_rounds_otherwise_is_not_relied_on(triton, monkeypatch):
    monkeypatch.setattr(quantising, "_each_row", lambda rows: (quantising._plain(rows, None, False)[0], rows[:, :1]))
    join_on(CPU)
    assert quantising._JOINS == {CPU: False}


def test_a_joined_kernel_that_is_slower_is_not_taken(triton, monkeypatch):
    monkeypatch.setattr(quantising, "_seconds", lambda _, way: 1.0 if way is quantising._joined else 0.5)
    join_on(CPU)
    assert quantising._JOINS == {CPU: False}


def test_a_joined_kernel_that_fails_later_costs_a_warning_and_neither_the_edit_nor_fp8(triton, monkeypatch, caplog):
    join_on(CPU)
    rows = uneven(8, 64)

    def fails(*_):
        raise FileNotFoundError("the cache is gone")

    monkeypatch.setattr(quantising, "_joined", fails)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert alike(quantise_rows(rows), quantising._plain(rows, None, False))
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1 and "the cache is gone" in caplog.text


def test_full_memory_does_not_take_the_joined_kernel_away(triton, monkeypatch):
    join_on(CPU)

    def full(*_):
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(quantising, "_joined", full)
    with pytest.raises(torch.OutOfMemoryError):
        quantise_rows(uneven(8, 64))
    assert quantising._JOINS == {CPU: True}
