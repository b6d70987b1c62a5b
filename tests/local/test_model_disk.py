"""With dynamic VRAM, what ComfyUI brings from the file by itself must be the file's own tensors, and nothing else.

There is no dynamic VRAM on a CPU. ComfyUI's own functions run here, and what comfy-aimdo does below them is played: the
map of a file, pinned memory that reads from a file, and a GPU, which is torch's `meta` device.
"""

from __future__ import annotations

import gc
import mmap
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from kontext_bridge.kontext.checkpoint.layers import Layer, layers
from kontext_bridge.kontext.standalone.tiny import TINY
from questions import INSIDE, Ask, question
from tiny_models import LAYOUTS

if INSIDE:
    import comfy.memory_management
    import comfy.model_management
    import comfy.ops
    import comfy.pinned_memory
    import comfy.utils
    import comfy_aimdo.host_buffer
    import comfy_aimdo.model_mmap
    import comfy_aimdo.model_vbar
    import comfy_aimdo.torch
    from inside import folder, ours, run
    from kontext_bridge.kontext.comfyui import load as comfyui
    from kontext_bridge.kontext.comfyui.patches import layers_of

pytestmark = pytest.mark.comfyui
GPU = torch.device("meta")


class Mapped:
    """comfy-aimdo's map of a file."""

    def __init__(self, path: str) -> None:
        self._file = Path(path).open("rb", buffering=0)  # noqa: SIM115  as long as the map
        self._memory = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)

    def get(self) -> int:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.frombuffer(self._memory, dtype=torch.uint8).data_ptr()

    def get_file_handle(self) -> Any:
        return self._file


class Pinned:
    """comfy-aimdo's pinned memory, which reads from a file by itself."""

    def __init__(self, size: int) -> None:
        self.memory = torch.zeros(size, dtype=torch.uint8)
        self.memory.untyped_storage()._comfy_hostbuf = self  # type: ignore[attr-defined]

    def get_raw_address(self) -> int:
        return self.memory.data_ptr()

    def read_file_slice(self, file: Any, start: int, size: int, offset: int = 0, **_: Any) -> None:
        self.memory[offset : offset + size] = _read(file, start, size)


def _read(file: Any, start: int, size: int) -> torch.Tensor:
    file.seek(start)
    return torch.frombuffer(bytearray(file.read(size)), dtype=torch.uint8)


@contextmanager
def dynamic_vram() -> Iterator[None]:
    """Within this block ComfyUI takes itself for one with dynamic VRAM when it reads files."""
    with (
        patch.object(comfy.memory_management, "aimdo_enabled", True),
        patch.object(comfy_aimdo.model_mmap, "ModelMMAP", Mapped),
    ):
        yield


def fault(layer: Any, *, pins: bool) -> dict[str, torch.Tensor]:
    """What ComfyUI reads from the file, in bytes, where it brings a layer to the GPU, with or without pins left."""
    kinds = ["weight", "bias"]
    wanted = [layer.weight, layer.bias]
    size = comfy.memory_management.vram_aligned_size(wanted)
    pinned, held, straight, routed = Pinned(size), [], [], []
    real = comfy.memory_management.read_tensor_file_slice_into

    def read(tensor: Any, *others: Any, **named: Any) -> bool:
        done = bool(real(tensor, *others, **named))
        routed.append(done)
        return done

    def read_to_gpu(file: Any, start: int, size: int, *_: Any, **__: Any) -> None:
        straight.append(_read(file, start, size))

    played = {
        (comfy.memory_management, "read_tensor_file_slice_into"): read,
        (comfy.pinned_memory, "get_pin"): lambda *_, **__: held[0] if held else None,
        (comfy.pinned_memory, "pin_memory"): lambda *_, **__: held.append(pinned.memory) if pins else None,
        (comfy_aimdo.host_buffer, "read_file_to_device"): read_to_gpu,
        # Some versions pin only what the GPU has no room for.
        (comfy_aimdo.model_vbar, "vbar_fault"): lambda _: None if pins else "signature",
        (comfy_aimdo.model_vbar, "vbar_signature_compare"): lambda *_: False,
        (comfy_aimdo.torch, "aimdo_to_tensor"): lambda allocated, _: allocated,
    }
    layer._v, layer._v_signature = torch.empty(size, dtype=torch.uint8, device=GPU), None
    with ExitStack() as stack:
        for (module, name), instead in played.items():
            stack.enter_context(patch.object(module, name, instead))
        comfy.ops.cast_modules_with_vbar([layer], None, GPU, None, False)
    del layer._v, layer._v_signature, layer._prefetch
    arrived = comfy.memory_management.interpret_gathered_like(wanted, pinned.memory) if pins else iter(straight)
    if not pins:
        arrived = [next(arrived) if done else None for done in routed]
    return {
        kind: tensor.contiguous().view(torch.uint8).flatten()
        for kind, tensor, done in zip(kinds, arrived, routed, strict=True)
        if done
    }


def faults(model: Any, truth: Any = None) -> dict[str, list[str]]:
    """The tensors of all layers that come from the file, and those of them that are not what `truth` has in memory."""
    told: dict[str, list[str]] = {"pins": [], "no pins": [], "wrong": []}
    kept = {} if truth is None else dict(layers_of(truth))
    for name, layer in layers_of(model):
        for way in "pins", "no pins":
            for kind, arrived in fault(layer, pins=way == "pins").items():
                full = f"{name.removeprefix('diffusion_model.')}.{kind}"
                told[way].append(full)
                memory = getattr(kept.get(name, layer), kind)
                if not torch.equal(arrived, memory.contiguous().view(torch.uint8).flatten()):
                    told["wrong"].append(f"{full} with {way}")
    return told


@question
def brought_to_the_gpu() -> Any:
    told = {}
    for layout in LAYOUTS:
        with dynamic_vram():
            model = ours(layout)
        plain = ours(layout)
        told[layout] = {**faults(model, plain), "same": bool(torch.equal(run(model), run(plain)))}
    return told


def whole_in_the_file(layout: str, layer: Layer) -> list[str]:
    """Which tensors of a layer a file of this layout has as they are computed with."""
    if layout.startswith("diffusers") and len(layer.parts) > 1:
        return []
    is_quantised_here = layout in ("bfloat16", "float32") and layer.role.in_block
    is_widened_here = layout == "plain_everything"
    return ["weight"] * (not is_quantised_here) + ["bias"] * (not is_widened_here)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_weight_of_the_file_that_is_copied_through_memory_at_every_fault_is_noticed(layout: str, ask: Ask) -> None:
    told = ask(brought_to_the_gpu)[layout]
    expected = {f"{layer.bfl}.{kind}" for layer in layers(TINY) for kind in whole_in_the_file(layout, layer)}
    assert set(told["pins"]) == set(told["no pins"]) == expected
    assert told["wrong"] == []
    assert told["same"] is True


@question
def without_dynamic_vram() -> Any:
    plain = ours()
    with dynamic_vram():
        function, arguments = plain.cached_patcher_init[:2]
        classic = function(*arguments, disable_dynamic=True)
    return [faults(model)["pins"] for model in (plain, classic)]


def test_a_read_only_map_that_reaches_a_loader_which_pins_weights_where_they_lie_is_noticed(ask: Ask) -> None:
    assert ask(without_dynamic_vram) == [[], []]


@question
def without_maps() -> Any:
    """With `--disable-mmap`: whether a file is mapped while its model is in use, and the edit the same."""
    told = {}
    for layout in LAYOUTS:
        expected = run(ours(layout))
        with patch.object(comfy.utils, "DISABLE_MMAP", True):
            model = ours(layout)
        gc.collect()
        name = f"kontext_{layout}.safetensors"
        mapped = sys.platform == "linux" and name in Path("/proc/self/maps").read_text()
        told[layout] = [mapped, bool(torch.equal(run(model), expected))]
        del model
    return told


def test_a_file_that_stays_mapped_where_comfyui_is_told_to_map_none_is_noticed(ask: Ask) -> None:
    assert ask(without_maps) == {layout: [False, True] for layout in LAYOUTS}


@question
def in_doubt() -> Any:
    """Files that are not as they were when they were checked, or not ComfyUI's to read."""
    real = comfy.utils.load_torch_file
    expected = run(ours())

    def fails(path: str, *_: Any, **__: Any) -> Any:
        raise RuntimeError(f"ModelMMAP allocation failed for {path}")

    def held(path: str, *others: Any, **named: Any) -> Any:
        with patch.object(os.path, "getsize", side_effect=PermissionError(13, "Another process has it", path)):
            return real(path, *others, **named)

    def replaced(path: str, *others: Any, **named: Any) -> Any:
        os.utime(path, (1, 1))
        return real(path, *others, **named)

    def otherwise(path: str, *others: Any, **named: Any) -> Any:
        return {name: tensor[None] for name, tensor in real(path, *others, **named).items()}

    told = {}
    ways = {"fails": fails, "held": held, "replaced": replaced, "otherwise": otherwise, "another name": real}
    with tempfile.TemporaryDirectory() as made, dynamic_vram():
        for way, instead in ways.items():
            name = "kontext.model" if way == "another name" else f"kontext_{way}.safetensors"
            path = Path(shutil.copy(folder / "ours" / "kontext_legacy.safetensors", Path(made, name)))
            with patch.object(comfy.utils, "load_torch_file", instead):
                model = comfyui.load(path).model
            told[way] = {"from the file": faults(model)["pins"], "same": bool(torch.equal(run(model), expected))}
            del model
            gc.collect()
    return told


def test_a_file_that_comfyui_reads_otherwise_than_it_was_checked_is_noticed(ask: Ask) -> None:
    told = ask(in_doubt)
    assert told == {way: {"from the file": [], "same": True} for way in told}


@question
def maps_of_the_file() -> Any:
    with dynamic_vram():
        model = ours()
    gc.collect()
    path = str(folder / "ours" / "kontext_legacy.safetensors")
    maps = [line.split()[1] for line in Path("/proc/self/maps").read_text().splitlines() if path in line]
    del model
    return maps


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells what is mapped")
def test_a_file_that_stays_mapped_twice_is_noticed(ask: Ask) -> None:
    assert ask(maps_of_the_file) == ["r--s"], "ComfyUI's map, and not the one that the file was checked in"
