"""What questions are made of, inside ComfyUI: tiny models, a run of one, and how far apart two results are.

The working folder holds the models: `ours/` in every layout, `dense/` the same numbers in float32 for ComfyUI's own
loader, and LoRA files.
"""

import hashlib
import logging
from pathlib import Path

import comfy.sd
import comfy.utils
import torch
from kontext_bridge.kontext.comfyui import load as comfyui
from kontext_bridge.kontext.errors import KontextError
from kontext_bridge.kontext.fp8.compute import Compute
from kontext_bridge.kontext.fp8.formats import FORMATS
from safetensors.torch import load_file, save_file

import nodes  # isort: skip

logging.disable(logging.INFO)
torch.set_num_threads(1)
folder = Path.cwd()


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def conditioning(*references, seed=1):
    options = {"pooled_output": random(1, 32, seed=seed), "guidance": 2.5}
    if references:
        options["reference_latents"] = list(references)
    return [[random(1, 7, 64, seed=seed + 1), options]]


REFERENCE = random(1, 16, 8, 12, seed=5)
POSITIVE = conditioning(REFERENCE)


def ours(layout="legacy", compute=Compute.AUTO):
    return comfyui.load(folder / "ours" / f"kontext_{layout}.safetensors", compute).model


def dense(layout="legacy"):
    path = str(folder / "dense" / f"kontext_{layout}.safetensors")
    return comfy.sd.load_diffusion_model(path, model_options={"dtype": torch.float32})


def run(model, positive=POSITIVE, *, sampler="euler", steps=4, size=(8, 12), start=None, denoise=1.0):
    latent = {"samples": torch.zeros(1, 16, *size) if start is None else start}
    (out,) = nodes.KSampler().sample(model, 7, steps, 1.0, sampler, "simple", positive, positive, latent, denoise)
    return out["samples"]


def guided(model):
    negative = conditioning(REFERENCE, seed=9)
    latent = {"samples": torch.zeros(1, 16, 8, 12)}
    (out,) = nodes.KSampler().sample(model, 7, 3, 3.0, "euler", "simple", POSITIVE, negative, latent)
    return out["samples"]


def apart(one, other):
    return float((one - other).norm() / other.norm())


def other_models():
    """A model that is no relation of the legacy one, and its numbers for ComfyUI's own loader."""
    paths = [folder / f"kontext_other_{kind}.safetensors" for kind in ("ours", "dense")]
    if not paths[0].exists():
        quantised, numbers = (load_file(folder / kind / "kontext_legacy.safetensors") for kind in ("ours", "dense"))
        for name in numbers:
            numbers[name] = numbers[name].flip(0)
            if quantised[name].dtype in FORMATS:
                quantised[name] = quantised[name].view(torch.uint8).flip(0).view(quantised[name].dtype)
                quantised[f"{name.removesuffix('weight')}scale_weight"] *= 1.25
                numbers[name] *= 1.25
            else:
                quantised[name] = quantised[name].flip(0)
        for path, tensors in zip(paths, (quantised, numbers), strict=True):
            save_file(tensors, path)
    return comfyui.load(paths[0]).model, comfy.sd.load_diffusion_model(str(paths[1]), {"dtype": torch.float32})


def with_stock_lora(model, name, strength=1.0):
    state = comfy.utils.load_torch_file(str(folder / "loras" / name), safe_load=True)
    return comfy.sd.load_lora_for_models(model, None, state, strength, 0)[0]


WITH_AND_WITHOUT_LORA = {
    "plain": lambda model: model,
    "lora": lambda model: with_stock_lora(model, "kohya.safetensors"),
}


def fp8_bytes(model):
    digest = hashlib.sha256()
    quantised = sorted((name, tensor) for name, tensor in model.model.named_parameters() if tensor.dtype in FORMATS)
    assert quantised
    for _, tensor in quantised:
        digest.update(tensor.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def forward(model):
    flux = model.model.diffusion_model
    arguments = {"context": random(1, 7, 64, seed=2), "y": random(1, 32), "guidance": torch.tensor([2.5])}
    return flux(random(1, 16, 8, 12, seed=3), torch.tensor([0.7]), ref_latents=[REFERENCE], **arguments)


def refusal(work):
    try:
        work()
    except KontextError as error:
        return str(error)
    return None
