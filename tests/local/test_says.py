"""A local node says in one line what it is doing and how it ended; off ComfyUI nobody is told anything."""

from __future__ import annotations

import re
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from kontext_bridge import host
from kontext_bridge.headless import ensure_comfy_api
from kontext_bridge.host import comfyui

ensure_comfy_api()

from kontext_bridge.kontext.errors import KontextError  # noqa: E402
from kontext_bridge.nodes.local.model import KontextEditLocal, KontextLoadFP8, KontextSample  # noqa: E402

SAMPLER = "kontext_bridge.kontext.comfyui.sampler"
DONE = r"done · \d+ s"
PICTURE = torch.rand(1, 64, 64, 3)
LATENT = {"samples": torch.zeros(1, 16, 8, 8)}
WIDGETS = {"prompt": "snow", "aspect_ratio": "match_input_image", "steps": 4, "guidance": 2.5, "seed": 0}


class Clip:
    def tokenize(self, prompt: str) -> str:
        return prompt

    def encode_from_tokens_scheduled(self, tokens: str) -> list[Any]:
        return [tokens]


class Vae:
    def encode(self, picture: torch.Tensor) -> torch.Tensor:
        return torch.zeros(1, 16, picture.shape[1] // 8, picture.shape[2] // 8)

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        return torch.zeros(1, latent.shape[2] * 8, latent.shape[3] * 8, 3)


def sample(_model: Any, edit: Any, *_: Any, callback: Any, **__: Any) -> torch.Tensor:
    for step in range(edit.steps):
        callback(step, None, None, edit.steps)
    return torch.zeros(1, 16, edit.height // 8, edit.width // 8)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What node 7 says in a ComfyUI whose sampler does nothing."""
    texts: list[str] = []
    monkeypatch.setattr(comfyui, "executing_node", lambda: "7")
    monkeypatch.setattr(comfyui, "tell", lambda _event, node, text, *_: texts.append(text) if node == "7" else None)
    monkeypatch.setitem(sys.modules, SAMPLER, SimpleNamespace(sample=sample))
    monkeypatch.setitem(sys.modules, "latent_preview", SimpleNamespace(prepare_callback=lambda *_: lambda *_: None))
    return texts


def edit(**more: Any) -> Any:
    return KontextEditLocal.execute(model=0, clip=Clip(), vae=Vae(), image=PICTURE, **{**WIDGETS, **more})


def test_a_whole_edit_says_each_of_its_stages(said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kontext_bridge.host.voice._PAUSE", 0.0)
    edit()
    steps = [f"step {step} of 4" for step in range(1, 5)]
    assert [text for text in said if text != "encoding"][:-1] == ["loading the model", *steps, "decoding"]
    assert said[0] == "encoding" and re.fullmatch(DONE, said[-1])


def test_of_several_edits_it_says_which_it_is_at(said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kontext_bridge.host.voice._PAUSE", 0.0)
    edit(variations=2)
    assert "edit 1 of 2 · step 4 of 4" in said and "edit 2 of 2 · step 1 of 4" in said


def test_quick_steps_are_not_told_one_by_one(said: list[str]) -> None:
    edit(steps=50)
    assert len(said) < 10


def test_sampling_says_its_steps_and_its_end(said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kontext_bridge.host.voice._PAUSE", 0.0)
    size = {"width": 64, "height": 64, "steps": 2, "guidance": 2.5, "seed": 0}
    KontextSample.execute(model=0, positive=[], references={"reference_0": LATENT}, **size)
    assert said[:3] == ["loading the model", "step 1 of 2", "step 2 of 2"] and re.fullmatch(DONE, said[3])


def test_what_failed_says_why(said: list[str]) -> None:
    with pytest.raises(KontextError):
        edit(prompt=" ")
    with pytest.raises(KontextError):
        KontextLoadFP8.execute("gone.safetensors", "auto", False)
    assert said[0] == "The prompt is empty: say in a sentence what to change"
    assert said[1].startswith("gone.safetensors is not in ComfyUI's folder")


def test_cancel_says_so(said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: Any, **__: Any) -> None:
        raise host.interruption()

    monkeypatch.setitem(sys.modules, SAMPLER, SimpleNamespace(sample=stopped))
    with pytest.raises(host.LocalInterruption):
        edit()
    assert said[-1] == "cancelled"


def test_off_comfyui_nobody_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    monkeypatch.setattr(comfyui, "tell", lambda *given: told.append(given))
    with pytest.raises(KontextError):
        edit(prompt=" ")
    assert told == []
