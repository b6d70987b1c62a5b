"""ComfyUI on a GPU that is only pretended, its own loader and this pack's: what goes on in a later step of an edit.

For ComfyUI's own Python, started with `--cpu --use-pytorch-cross-attention`. The models are files of the full width,
sparse on the disk (tests/full_size.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

import comfy.memory_management
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy_aimdo.host_buffer
import comfy_aimdo.model_vbar
import comfy_aimdo.torch
import comfy_kitchen
import full_size
import torch
from cards import Card
from comfy_kitchen.backends import eager
from kontext_bridge.kontext.checkpoint.layers import KONTEXT
from kontext_bridge.kontext.comfyui import load as comfyui
from kontext_bridge.kontext.comfyui import ops
from pretended import Counted, Gpu, pretended
from torch.utils._python_dispatch import _disable_current_modes

import nodes  # isort: skip

OPTIONS = ("--use-pytorch-cross-attention",)
FEW_BLOCKS = replace(KONTEXT, doubles=1, singles=2)
TEXT = 512


@contextmanager
def comfyui_on(card: Card, *, kernels: bool = True) -> Iterator[Gpu]:
    """Within the block ComfyUI has this GPU. kernels: whether comfy-kitchen's are there, which CUDA 13 takes."""
    management = comfy.model_management
    with ExitStack() as stack:
        gpu = stack.enter_context(pretended(card))
        for name, value in {
            "cpu_state": management.CPUState.GPU,
            "vram_state": management.VRAMState.NORMAL_VRAM,
            "lowvram_available": True,
            "get_torch_device": lambda: gpu.device,
            "get_all_torch_devices": lambda *_, **__: [gpu.device],
            "is_nvidia": lambda: True,
            "current_loaded_models": [],
        }.items():
            stack.enter_context(mock.patch.object(management, name, value))
        stack.enter_context(mock.patch.dict(ops._REFUSED, clear=True))
        if not kernels:
            for name in ("quantize_per_tensor_fp8", "dequantize_per_tensor_fp8", "apply_rope", "apply_rope1"):
                stack.enter_context(mock.patch.object(comfy_kitchen, name, getattr(eager, name)))
        yield gpu


def ours(path: Path, **options: Any) -> Any:
    return comfyui.load(path, pruned=True, **options).model


def stock(path: Path) -> Any:
    # Its descriptions of layers are read out of tensors, which must have numbers then.
    with _disable_current_modes():
        return comfy.sd.load_diffusion_model(str(path))


def with_lora(model: Any, rank: int = 16) -> Any:
    """The model with a LoRA put on by ComfyUI's own Load LoRA."""
    size = model.model.diffusion_model.params
    tensors = full_size.lora_tensors(rank, replace(KONTEXT, doubles=size.depth, singles=size.depth_single_blocks))
    return comfy.sd.load_lora_for_models(model, None, tensors, 0.8, 0)[0]


def with_a_changed_weight(model: Any) -> Any:
    """The model with a patch that is no LoRA on one of its layers, which is written out at each use."""
    changed, name = model.clone(), "diffusion_model.single_blocks.0.linear2.weight"
    changed.add_patches({name: ("diff", (torch.empty(KONTEXT.hidden, 5 * KONTEXT.hidden),))}, 0.5)
    return changed


def conditioning(references: int = 1, side: int = 128) -> list[Any]:
    options = {
        "pooled_output": torch.empty(1, KONTEXT.pooled),
        "guidance": 2.5,
        "reference_latents": [torch.empty(1, 16, side, side) for _ in range(references)],
    }
    return [[torch.empty(1, TEXT, KONTEXT.context), options]]


def steps_of(
    gpu: Gpu, model: Any, *, steps: int = 3, references: int = 1, side: int = 128, batch: int = 1
) -> list[Counted]:
    """What each step of an edit takes, from ComfyUI's own KSampler."""
    # ComfyUI itself brings the conditioning to the GPU at every step, just before.
    kind, counted = type(model.model.diffusion_model), []
    real = kind.forward

    def forward(self: Any, x: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
        with gpu.counting() as step:
            out = real(self, x, *arguments, **options)
        assert out.shape == x.shape and out.device == gpu.device, (out.shape, out.device)
        counted.append(step)
        return out

    positive, latent = conditioning(references, side), {"samples": torch.zeros(batch, 16, side, side)}
    with mock.patch.object(kind, "forward", forward):
        nodes.KSampler().sample(model, 7, steps, 1.0, "euler", "simple", positive, positive, latent)
    assert len(counted) == steps
    return counted


@contextmanager
def room_for(part: float) -> Iterator[None]:
    """Within the block ComfyUI finds room for that part of a model's weights."""
    loaded = comfy.model_management.LoadedModel
    real = loaded.model_load

    def model_load(self: Any, lowvram_model_memory: Any = 0, force_patch_weights: bool = False) -> Any:
        return real(self, int(part * self.model_memory()) if part < 1 else 0, force_patch_weights)

    with mock.patch.object(loaded, "model_load", model_load):
        yield


@dataclass
class DynamicVram:
    """ComfyUI's dynamic VRAM with its library's work pretended: weights have a place, and are faulted in for use.

    places: of the weights, in the order in which they were given. room: for how many bytes; what has none is brought
    for each use.
    """

    room: float = float("inf")
    faults: int = 0
    unpins: int = 0
    places: list[Any] = field(default_factory=list)
    _filled: dict[int, torch.Tensor] = field(default_factory=dict)

    def fault(self, place: Any) -> Any:
        self.faults += 1
        return b"resident" if self._end(place) <= self.room else None

    def unpin(self, place: Any) -> None:
        self.unpins += 1

    def tensor(self, place: Any, device: torch.device) -> torch.Tensor:
        if place[1] not in self._filled:
            self._filled[place[1]] = torch.empty(place[2], dtype=torch.uint8, device=device)
        return self._filled[place[1]]

    def _end(self, place: Any) -> int:
        return int(place[1] + place[2])

    def space(self, *_: Any) -> Any:
        space = mock.MagicMock()
        space.loaded_size.return_value = 0
        space.free_memory.return_value = 0

        def alloc(size: int) -> Any:
            start = self._end(self.places[-1]) if self.places else 0
            self.places.append((space, start, size))
            return self.places[-1]

        space.alloc = alloc
        return space


@contextmanager
def dynamic_vram(room: float = float("inf")) -> Iterator[DynamicVram]:
    """Within the block ComfyUI loads models by dynamic VRAM; it has no pinned memory."""
    stub = DynamicVram(room)
    with ExitStack() as stack:
        for module, name, value in (
            (comfy_aimdo.model_vbar, "ModelVBAR", stub.space),
            (comfy_aimdo.model_vbar, "vbar_fault", stub.fault),
            (comfy_aimdo.model_vbar, "vbar_unpin", stub.unpin),
            (comfy_aimdo.model_vbar, "vbar_signature_compare", lambda one, other: one is not None and one == other),
            (comfy_aimdo.torch, "aimdo_to_tensor", stub.tensor),
            (comfy_aimdo.host_buffer, "HostBuffer", lambda *_: mock.MagicMock(size=0)),
            (comfy.memory_management, "aimdo_enabled", True),
            (comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcherDynamic),
            (comfy.model_management.args, "disable_pinned_memory", True),
        ):
            stack.enter_context(mock.patch.object(module, name, value))
        yield stub
