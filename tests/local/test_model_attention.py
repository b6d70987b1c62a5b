"""Attention by torch's own choice of kernel: taken where a trial says so, nowhere else, and with the same numbers."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import pytest
import torch
from questions import INSIDE, Ask, question

if INSIDE:
    from comfy.ldm.modules import attention as theirs
    from inside import apart, folder, ours, run
    from kontext_bridge.kontext.comfyui import attention
    from kontext_bridge.kontext.comfyui import load as comfyui

pytestmark = pytest.mark.comfyui
# A process of ComfyUI that other questions have started already.
OPTIONS = ("--use-pytorch-cross-attention",)
PATH = "kontext_legacy.safetensors"


@contextmanager
def a_gpu_that(trial: Any) -> Any:
    """Within the block the CPU is a GPU whose trial went so; gives a list with an entry for each plain attention."""
    taken: list[int] = []
    real = attention._plainly

    def plainly(*given: torch.Tensor) -> torch.Tensor:
        taken.append(1)
        return real(*given)

    with ExitStack() as stack:
        stack.enter_context(mock.patch.dict(attention._TRIED, clear=True))
        for name, value in {
            "_may_choose": lambda _: True,
            "_tried": lambda _: trial,
            "_plainly": plainly,
            "_TYPES": (torch.float32,),
        }.items():
            stack.enter_context(mock.patch.object(attention, name, value))
        yield taken


@question
def on_gpus() -> Any:
    told = {}
    exact = run(ours())
    trials = {
        "faster": attention.Trial(2e-3, 1e-3, True),
        "nearly alike": attention.Trial(2e-3, 1.9e-3, True),
        "other numbers": attention.Trial(2e-3, 1e-3, False),
        "failed": None,
    }
    for name, trial in trials.items():
        with a_gpu_that(trial) as taken:
            loaded = comfyui.load(folder / "ours" / PATH)
            strayed, plain = apart(run(loaded.model.clone()), exact), len(taken)
            told[name] = [plain, strayed, loaded.description.splitlines()[-1]]
            if name == "faster":
                told["calls"] = _calls()
                loaded.model.set_model_optimized_attention(theirs.attention_basic)
                taken.clear()
                run(loaded.model)
                told["another node's"] = len(taken)
    told["none"] = attention._may_choose(torch.device("cpu"))
    return told


def _calls() -> Any:
    """Which calls are passed on to ComfyUI's own, as they came."""
    passed: list[Any] = []

    def function(*given: Any, **named: Any) -> str:
        passed.append((len(given), sorted(named)))
        return "passed"

    q = torch.randn(1, 2, 5, 8)
    inside = {"_inside_attn_wrapper": True, "transformer_options": {}, "skip_reshape": True}
    calls = [
        inside,
        {**inside, "mask": None, "skip_output_reshape": True},
        {**inside, "mask": torch.zeros(5, 5)},
        {**inside, "scale": 2.0},
        {**inside, "skip_reshape": False},
    ]
    shapes = [attention._as_torch_chooses(function, q, q, q, 2, **named) for named in calls]
    shapes.append(attention._as_torch_chooses(function, q, q, q, 2, None, skip_reshape=True))
    shapes.append(attention._as_torch_chooses(function, q.half(), q, q, 2, **inside))
    own = theirs.attention_pytorch(q, q, q, 2, skip_reshape=True)
    same = torch.equal(own, shapes[0])
    return [same, [one if isinstance(one, str) else list(one.shape) for one in shapes], passed]


def test_a_choice_that_is_not_taken_or_changes_the_numbers_is_noticed(ask: Ask) -> None:
    taken, strayed, said = ask(on_gpus, *OPTIONS)["faster"]
    assert taken > 4 and strayed == 0
    assert said == "Attention: torch's own choice of kernel, 1.00 ms in place of 2.00 ms in ComfyUI's order"


@pytest.mark.parametrize("trial", ["nearly alike", "other numbers", "failed"])
def test_a_choice_that_did_not_win_and_is_taken_is_noticed(trial: str, ask: Ask) -> None:
    taken, strayed, said = ask(on_gpus, *OPTIONS)[trial]
    assert taken == 0 and strayed == 0 and "Attention" not in said


def test_an_attention_that_is_not_flux_s_plain_one_and_does_not_reach_comfyui_is_noticed(ask: Ask) -> None:
    same, shapes, passed = ask(on_gpus, *OPTIONS)["calls"]
    assert same and shapes[:2] == [[1, 5, 16], [1, 2, 5, 8]]
    assert shapes[2:] == ["passed"] * 5 and [number for number, _ in passed] == [4, 4, 4, 5, 4]
    assert passed[0][1] == ["_inside_attn_wrapper", "mask", "skip_reshape", "transformer_options"]


def test_a_choice_that_takes_another_nodes_attention_away_is_noticed(ask: Ask) -> None:
    told = ask(on_gpus, *OPTIONS)
    assert told["another node's"] == 0 and told["none"] is False


@question
def tried() -> Any:
    """What is found of an attention that is the other one, and of one that is wrong; on a CPU, with few tokens."""
    with ExitStack() as stack:
        for module, name, value in (
            (attention, "_TOKENS", 16),
            (attention.torch.cuda, "synchronize", lambda _: None),
            (attention, "name_of", str),
        ):
            stack.enter_context(mock.patch.object(module, name, value))
        cpu = torch.device("cpu")
        right = attention._tried(cpu)
        with mock.patch.object(attention, "_plainly", lambda q, k, v: torch.zeros_like(q)):
            wrong = attention._tried(cpu)

        def refuses(*_: Any) -> Any:
            raise RuntimeError("no kernel image is available for execution on the device")

        with mock.patch.object(attention, "_plainly", refuses):
            refused = attention._tried(cpu)

        def full(*_: Any) -> Any:
            raise torch.OutOfMemoryError("CUDA out of memory")

        stack.enter_context(mock.patch.dict(attention._TRIED, clear=True))
        stack.enter_context(mock.patch.object(attention, "_may_choose", lambda _: True))
        with mock.patch.object(attention, "_plainly", full):
            said = attention.let_torch_choose(ours(), cpu)
        return [right.same, right.ordered > 0, wrong.same, refused is None, said, cpu in attention._TRIED]


def test_a_trial_that_takes_wrong_numbers_or_ends_the_loading_is_noticed(ask: Ask) -> None:
    assert ask(tried, *OPTIONS) == [True, True, False, True, "", False]
