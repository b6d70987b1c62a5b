"""Tiny models in every layout, the same numbers in float32, and LoRA of several kinds, as files."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import torch
from kontext_bridge.kontext.checkpoint.bfl import bfl_layers, bfl_norms
from kontext_bridge.kontext.checkpoint.layers import Role, Size, layers
from kontext_bridge.kontext.checkpoint.reading import read_checkpoint
from kontext_bridge.kontext.fp8.formats import dequantise, quantise_rows
from kontext_bridge.kontext.standalone.tiny import TINY, random_weights
from safetensors.torch import save_file

HERE = Path(__file__).parent
_WIDE = ("bfloat16", "float32")


def _layouts() -> ModuleType:
    return _module("conftest")


def _module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"kontext_{name}", HERE.parent / "kontext" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


LAYOUTS = (*_layouts().LAYOUTS, *_WIDE)


def dequantised(path: Path) -> dict[str, torch.Tensor]:
    """What a file's numbers are once they are FP8, by BFL's names in float32."""
    checkpoint = read_checkpoint(path)
    numbers = {f"{name}.scale": norm.float() for name, norm in bfl_norms(checkpoint)}
    for name, weights in bfl_layers(checkpoint):
        weight, scale = weights.weight, weights.scale
        if scale is None and not checkpoint.is_fp8 and weights.role.in_block:
            weight, by_row = quantise_rows(weight)
            scale = by_row[:, 0]
        numbers[f"{name}.weight"] = weight.float() if scale is None else dequantise(weight, scale, torch.float32)
        numbers[f"{name}.bias"] = weights.bias.float()
    return numbers


def write_models(folder: Path) -> None:
    """Every layout in `ours`, its numbers in `dense`, LoRA in `loras`, `spelled` and `kinds`."""
    for name in ("ours", "dense", "loras", "spelled", "kinds"):
        (folder / name).mkdir()
    weights, layouts = random_weights(), _layouts()
    for layout in LAYOUTS:
        path = layouts.write_layout(layout, folder / "ours", weights, TINY)
        save_file(dequantised(path), folder / "dense" / path.name)
    write_loras(folder / "loras")
    spellings = _module("spellings")
    for title, spelled in [*spellings.every_spelling(TINY), ("processors", spellings.processors(TINY))]:
        _save(spelled.tensors, folder / "spelled" / f"{title}.safetensors")
    for title, tensors in spellings.kinds(TINY).items():
        _save(tensors, folder / "kinds" / f"{title}.safetensors")


def _save(tensors: dict[str, torch.Tensor], path: Path) -> None:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)


def write_loras(folder: Path, size: Size = TINY) -> None:
    """A LoRA as kohya names it, one as diffusers does (separate query, key, value), and a LoKr."""
    generator = torch.Generator().manual_seed(3)

    def matrices(rows: int, inputs: int, rank: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
        return (
            torch.randn(rank, inputs, generator=generator) / inputs**0.5,
            torch.randn(rows, rank, generator=generator) * 0.05,
        )

    kohya, diffusers, lokr = {}, {}, {}
    for layer in layers(size):
        if layer.role is Role.OUTER:
            continue
        down, up = matrices(layer.rows, layer.inputs)
        name = "lora_unet_" + layer.bfl.replace(".", "_")
        kohya |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up, f"{name}.alpha": torch.tensor(2.0)}
        for part in layer.parts:
            if "norm" not in part.name:
                down, up = matrices(part.rows, layer.inputs)
                diffusers |= {
                    f"transformer.{part.name}.lora_A.weight": down,
                    f"transformer.{part.name}.lora_B.weight": up,
                }
        if layer.role.in_block:
            lokr |= {
                f"{name}.lokr_w1": torch.randn(2, 2, generator=generator) * 0.05,
                f"{name}.lokr_w2": torch.randn(layer.rows // 2, layer.inputs // 2, generator=generator) * 0.05,
                f"{name}.alpha": torch.tensor(1.0),
            }
    for name, tensors in (("kohya", kohya), ("diffusers", diffusers), ("lokr", lokr)):
        save_file(tensors, folder / f"{name}.safetensors")


def write_vae(path: Path) -> None:
    """A random VAE small enough for a CPU, in the layout of TAESD, which ComfyUI's Load VAE takes for FLUX.1."""
    generator = torch.Generator().manual_seed(4)
    tensors: dict[str, torch.Tensor] = {}

    def convolution(name: str, inputs: int, outputs: int, bias: bool = True) -> None:
        tensors[f"{name}.weight"] = torch.randn(outputs, inputs, 3, 3, generator=generator) / (9 * inputs) ** 0.5
        if bias:
            tensors[f"{name}.bias"] = torch.zeros(outputs)

    def blocks(side: str, *places: int) -> None:
        for place in places:
            for layer in (0, 2, 4):
                convolution(f"taesd_{side}.{place}.conv.{layer}", 64, 64)

    convolution("taesd_encoder.0", 3, 64)
    blocks("encoder", 1, 3, 4, 5, 7, 8, 9, 11, 12, 13)
    convolution("taesd_encoder.14", 64, 16)
    convolution("taesd_decoder.1", 16, 64)
    blocks("decoder", 3, 4, 5, 8, 9, 10, 13, 14, 15, 18)
    convolution("taesd_decoder.19", 64, 3)
    for name in ("encoder.2", "encoder.6", "encoder.10", "decoder.7", "decoder.12", "decoder.17"):
        convolution(f"taesd_{name}", 64, 64, bias=False)
    save_file(tensors, path)


def write_comfyui_folder(models: Path) -> None:
    """What the example workflows load, tiny and under the real names, in ComfyUI's `models` folder.

    The text encoders are empty files, there to be chosen and never read. The model is as small as one can be: edits
    are made at a megapixel, which is a lot for a CPU.
    """
    size = replace(TINY, doubles=1, singles=1)
    for name in ("diffusion_models", "loras", "vae", "text_encoders"):
        (models / name).mkdir(parents=True, exist_ok=True)
    model = _layouts().write_layout("legacy", models / "diffusion_models", random_weights(size), size)
    model.rename(model.with_name("flux1-dev-kontext_fp8_scaled.safetensors"))
    write_loras(models / "loras", size)
    (models / "loras" / "kohya.safetensors").rename(models / "loras" / "kontext_style.safetensors")
    write_vae(models / "vae" / "ae.safetensors")
    for name in ("clip_l.safetensors", "t5xxl_fp8_e4m3fn_scaled.safetensors"):
        (models / "text_encoders" / name).touch()
