"""A device on which torch.compile does not work is told of when compiling is chosen, with what to do about it."""

import importlib.util
import sys
import types

import pytest
import torch
from kontext_bridge.kontext.errors import BadRequest
from kontext_bridge.kontext.fp8 import compilers
from kontext_bridge.kontext.fp8.compilers import require_compiler

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def nothing_is_known(monkeypatch):
    compilers._MISSING.clear()
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA Pretended")
    yield
    compilers._MISSING.clear()


def compiler(monkeypatch, fails=None):
    asked = []

    def compile(function, **_):
        asked.append(function)
        if fails is not None:
            raise fails
        return function

    monkeypatch.setattr(torch, "compile", compile)
    return asked


def test_where_it_works_it_is_tried_once(monkeypatch):
    asked = compiler(monkeypatch)
    require_compiler(CPU)
    require_compiler(CPU)
    assert len(asked) == 1


def test_without_triton_it_is_refused_before_anything_is_compiled(monkeypatch):
    asked = compiler(monkeypatch)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(
        BadRequest, match=r"NVIDIA Pretended: Triton is not installed.*triton-windows.*switch compile off"
    ):
        require_compiler(torch.device("cuda", 0))
    assert asked == []


def test_a_module_in_tritons_place_that_another_pack_has_made_is_no_triton(monkeypatch):
    asked = compiler(monkeypatch)
    monkeypatch.setitem(sys.modules, "triton", types.ModuleType("triton"))
    with pytest.raises(BadRequest, match="Triton is not installed"):
        require_compiler(torch.device("cuda", 0))
    assert asked == []


class Wrapped(RuntimeError):
    def __init__(self, inner):
        super().__init__("backend='inductor' raised:\nsomething")
        self.inner_exception = inner


@pytest.mark.parametrize("kind", [RuntimeError, FileNotFoundError, ImportError, AssertionError])
def test_a_compiler_that_fails_is_told_of_with_its_own_words(monkeypatch, kind):
    compiler(monkeypatch, Wrapped(kind("Failed to find C compiler.\nMore")))
    for _ in range(2):
        with pytest.raises(BadRequest, match=r"Failed to find C compiler\. It needs a C\+\+ compiler"):
            require_compiler(CPU)


def test_full_memory_is_not_taken_for_a_compiler_that_fails(monkeypatch):
    compiler(monkeypatch, torch.OutOfMemoryError("full"))
    with pytest.raises(torch.OutOfMemoryError):
        require_compiler(CPU)
    assert compilers._MISSING == {}
