"""The benchmark of a GPU, which seldom sees one: it must not fail there, nor lose or mistake what it has measured."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.autograd import DeviceType
from torch.autograd.profiler_util import EventList, FunctionEvent

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

import gpu
import profiles
from gpu_bench import BEGUN, HEAD_ROW, Notes, Row


def event(name, start, end, *kernels, device=DeviceType.CPU, annotation=False):
    times = {"start_us": start, "end_us": end, "device_type": device, "use_device": "cuda", "stack": []}
    made = FunctionEvent(id=start, name=name, thread=1, is_user_annotation=annotation, **times)
    for kernel, microseconds in kernels:
        made.append_kernel(kernel, 0, microseconds)
    return made


def seen_of_a_step():
    """What torch's profiler tells of a GPU's 100 us: 50 of a product, 20 attention, 15 quantising, 15 a norm."""
    cuda = {"device": DeviceType.CUDA}
    events = [
        event("aten::linear", 0, 9),
        event("aten::addmm", 1, 8, ("gemm", 50)),
        event("aten::_scaled_dot_product_cudnn_attention", 10, 19, ("fmha", 20)),
        event("quantising", 20, 40, annotation=True),
        event("aten::abs", 21, 22, ("elementwise", 5)),
        event("aten::native_layer_norm", 41, 42, ("norm", 15)),
        event("gemm", 100, 150, **cuda),
        event("fmha", 150, 170, **cuda),
        event("elementwise", 170, 175, **cuda),
        # Launched by no operator of torch: only what is annotated has its time.
        event("triton_joined", 175, 185, **cuda),
        event("quantising", 170, 185, **cuda, annotation=True),
        event("norm", 185, 200, **cuda),
    ]
    found = EventList(events, use_device="cuda")
    found._build_tree()
    return found


def test_a_kernels_time_that_is_also_counted_for_its_operator_is_noticed():
    events = seen_of_a_step()
    found = profiles.shares(events)
    assert found == pytest.approx({"linear": 0.5, "attention": 0.2, "quantising": 0.15, "rest": 0.15})
    kernels = [one for one in events.key_averages() if profiles.on_gpu(one)]
    assert sum(one.self_device_time_total for one in kernels) == 100 and sum(one.count for one in kernels) == 5


def test_a_row_of_the_table_with_more_or_fewer_cells_than_its_head_is_noticed():
    whole = Row("whole", 0.3, 9.1, 13.5, 552.0, {"linear": 0.5}, 1.9e-2, "row-wise")
    told = gpu.table("title", [whole, Row("empty")], {"matrix product": 1000.0, "attention": 5000.0}).splitlines()
    head, *_, full, empty = told[told.index(HEAD_ROW.splitlines()[0]) :]
    assert {line.count("|") for line in (head, full, empty)} == {13}
    assert "| 300.0 | 9.10 | 13.50 | 552 | 55% | 50% |" in full, "a part of the fastest product, not of attention"


def test_what_a_part_had_measured_and_what_follows_its_end_are_not_lost(monkeypatch, tmp_path):
    """A program that dies in a row: the row says so, the part goes on behind it, and what hangs is ended."""
    notes, begun = Notes(tmp_path / "rows.jsonl"), []

    def program(options, name, folder, ends):
        begun.append(name)
        note = f"open({str(notes.path)!r}, 'a').write"
        row = '{"kind": "row", "what": "%s", "step": 0.1, "note": "%s"}\n'
        first = f"{note}({row % ('measured', '')!r}); {note}({row % ('dies', BEGUN)!r}); import os; os._exit(7)"
        return [sys.executable, "-S", "-c", first if len(begun) == 1 else f"{note}({row % ('later', '')!r})"]

    monkeypatch.setattr(gpu, "program", program)
    gpu.run_part(SimpleNamespace(), "ours", tmp_path, gpu.time.perf_counter() + 100)
    rows, _ = notes.read()
    assert [(what, row.note) for what, row in rows.items()] == [
        ("measured", ""),
        ("dies", "failed: its program ended with 7"),
        ("later", ""),
    ]
    assert len(begun) == 2 and rows["dies"].step == 0.1, "what was known of it before"
    gpu.run_part(SimpleNamespace(), "compiled", tmp_path, gpu.time.perf_counter() - 1)
    assert notes.read()[0]["part compiled"].note == "not begun: no time was left" and len(begun) == 2
    notes.add("rate", {"what": "matrix product", "rate": 1.0})
    notes.forget_what_was_not_begun()
    assert list(notes.read()[0]) == ["measured", "dies", "later"] and notes.read()[1] == {"matrix product": 1.0}


def test_a_trial_that_fails_or_finds_nothing_is_noticed(monkeypatch, tmp_path):
    pytest.importorskip("diffusers")
    words = ["--tiny", "--device", "cpu", "--part", "ours", "--rows", "stored only", "--into", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["gpu.py", *words])
    assert gpu.main() == 0
    rows, rates = Notes(tmp_path / "rows.jsonl").read()
    (row,) = rows.values()
    assert row.what == gpu.FIRST and row.step and row.edit and row.rate and row.apart == 0 and row.note == ""
    assert sum(row.shares.values()) == pytest.approx(1) and row.shares["linear"] > 0
    assert any(what.startswith("matrix") for what in rates) and any(what.startswith("attention") for what in rates)
    assert torch.load(tmp_path / "first_row.pt").shape == (1, 16, 8, 8)
