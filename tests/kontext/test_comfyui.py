"""Our forward against ComfyUI's own Flux model, on the same weights and inputs."""

import os
import subprocess
import sys
from pathlib import Path

import kontext_bridge
import pytest
import torch
from kontext_bridge.kontext.checkpoint.reading import read_checkpoint
from kontext_bridge.kontext.fp8.formats import FORMATS, dequantise
from kontext_bridge.kontext.latents import ReferenceMethod, pack, unpack
from kontext_bridge.kontext.schedule import schedule
from kontext_bridge.kontext.standalone.denoiser import Conditioning, Denoiser
from kontext_bridge.kontext.standalone.mount import mount
from safetensors.torch import load_file, save_file

ORACLE = Path(__file__).with_name("comfy_oracle.py")


@pytest.fixture
def comfyui():
    tree = os.environ.get("COMFYUI_PATH")
    if not tree:
        pytest.skip("needs the real ComfyUI: set COMFYUI_PATH to its folder")
    return tree, os.environ.get("COMFYUI_PYTHON", sys.executable)


@pytest.mark.comfyui
def test_every_step_is_that_of_comfyuis_own_model(comfyui, write, size, tmp_path):
    checkpoint = read_checkpoint(write("legacy"))
    numbers = {f"{name}.scale": tensor.float() for name, tensor in checkpoint.norms.items()}
    for name, layer in checkpoint.linears.items():
        quantised = layer.weight.dtype in FORMATS
        weight = dequantise(layer.weight, layer.scale, torch.float32) if quantised else layer.weight.float()
        numbers |= {f"{name}.weight": weight, f"{name}.bias": layer.bias.float()}
    g = torch.Generator().manual_seed(2)
    sigmas = schedule(4, 24)
    inputs = {
        "latent": torch.randn(1, 16, 8, 12, generator=g),
        "sigmas": sigmas[:-1].clone(),
        "text": torch.randn(1, 11, size.context, generator=g),
        "pooled": torch.randn(1, size.pooled, generator=g),
        "guidance": torch.tensor([2.5]),
        "reference0": torch.randn(1, 16, 8, 12, generator=g),
        "reference1": torch.randn(1, 16, 12, 6, generator=g),
        "reference2": torch.randn(1, 16, 4, 10, generator=g),
    }
    save_file(numbers, tmp_path / "weights.safetensors")
    save_file(inputs, tmp_path / "inputs.safetensors")
    tree, python = comfyui
    files = [str(tmp_path / f"{name}.safetensors") for name in ("weights", "inputs", "outputs")]
    done = subprocess.run([python, str(ORACLE), tree, *files], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    theirs = load_file(files[2])
    model = mount(checkpoint, dtype=torch.float32)
    references = [inputs[f"reference{i}"] for i in range(3)]
    conditioning = Conditioning(inputs["text"], inputs["pooled"])
    for method in ReferenceMethod:
        denoiser = Denoiser(model, conditioning, references, 8, 12, sigmas, 2.5, method=method)
        for step in range(4):
            with torch.inference_mode():
                ours = unpack(denoiser(pack(inputs["latent"]), step), 8, 12)
            expected = theirs[f"{method.value}.{step}"]
            assert ((ours - expected).norm() / expected.norm()).item() < 1e-5, (method, step)


FP8_BIASES = """
import sys

sys.argv[1:], (tree, package, path) = ["--cpu"], sys.argv[1:]
sys.path[:0] = [tree, package]
import comfy.options

comfy.options.enable_args_parsing()
from kontext_bridge.kontext.checkpoint.lora import read_lora
from kontext_bridge.kontext.comfyui import lora as comfyui_lora
from kontext_bridge.kontext.standalone.tiny import TINY

for change in read_lora(path, TINY, every_kind=True).changes:
    (key, (_, (values,))) = comfyui_lora._changed(change, ".weight")
    assert key[0].endswith(".bias") and values.tolist() == [2.0] * 128, (key, values)
    print(change.kind.name)
"""


@pytest.mark.comfyui
@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
def test_biases_in_fp8_become_comfyuis_patches(comfyui, tmp_path, dtype):
    tree, python = comfyui
    layer = "transformer.transformer_blocks.0.attn.to_q"
    path = tmp_path / "lora.safetensors"
    save_file({f"{layer}.diff_b": torch.full((128,), 2.0).to(dtype)}, path)
    # A checkout may be called anything.
    (tmp_path / "kontext_bridge").symlink_to(Path(kontext_bridge.__file__).parent, target_is_directory=True)
    done = subprocess.run(
        [python, "-c", FP8_BIASES, tree, str(tmp_path), str(path)], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["BIAS"]
