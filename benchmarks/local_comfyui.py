"""Load Kontext (FP8) beside ComfyUI's own loader: seconds a step, seconds to load, memory, how far apart.

COMFYUI_PYTHON benchmarks/local_comfyui.py COMFYUI_PATH [--model FILE] [--blocks 19,38] [--side 1024] [--tokens 512]
[--steps 8] [--rounds 3] [-- OPTIONS OF COMFYUI, such as --cpu or --supports-fp8-compute]

Run it in ComfyUI's own Python, on the machine whose figures are wanted; on a GPU the options can be left out. Without
--model a random model of Kontext's width with that many double and single blocks is written in the released layout.
Both loaders sample the same noise, prompt and reference with the stock KSampler, by turns; the figures are medians.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
HIDDEN, CONTEXT, POOLED = 3072, 4096, 768


def arguments() -> argparse.Namespace:
    own, theirs = sys.argv[1:], []
    if "--" in own:
        own, theirs = own[: own.index("--")], own[own.index("--") + 1 :]
    parser = argparse.ArgumentParser()
    parser.add_argument("tree", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--blocks", default="19,38")
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args(own)
    sys.path.insert(0, str(chosen.tree))
    sys.argv = ["main.py", *theirs]
    return chosen


def import_pack() -> None:
    """The pack as `kontext_bridge`, which need not be installed beside ComfyUI."""
    locations = [str(REPOSITORY)]
    spec = importlib.util.spec_from_file_location(
        "kontext_bridge", REPOSITORY / "__init__.py", submodule_search_locations=locations
    )
    assert spec is not None
    sys.modules["kontext_bridge"] = importlib.util.module_from_spec(spec)


def write_model(path: Path, blocks: str) -> None:
    from kontext_bridge.kontext.checkpoint.layers import Size
    from kontext_bridge.kontext.standalone.tiny import write_scaled

    doubles, singles = map(int, blocks.split(","))
    write_scaled(path, Size(HIDDEN, doubles, singles, CONTEXT, POOLED))


def main() -> None:
    chosen = arguments()
    import comfy.options

    comfy.options.enable_args_parsing()
    import comfy.model_management
    import comfy.sd
    import torch

    import nodes

    import_pack()
    from kontext_bridge.kontext.comfyui import load as comfyui

    device = comfy.model_management.get_torch_device()
    side = chosen.side // 8
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Any:
        return torch.randn(*shape, generator=generator)

    prompt = [
        [
            random(1, chosen.tokens, CONTEXT),
            {"pooled_output": random(1, POOLED), "guidance": 2.5, "reference_latents": [random(1, 16, side, side)]},
        ]
    ]
    empty = {"samples": torch.zeros(1, 16, side, side)}

    def run(model: Any, seed: int) -> Any:
        (out,) = nodes.KSampler().sample(model, seed, chosen.steps, 1.0, "euler", "simple", prompt, prompt, empty)
        return out["samples"]

    def measured(load: Callable[[], Any]) -> tuple[float, list[float], float, Any]:
        comfy.model_management.unload_all_models()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        began = time.perf_counter()
        model = load()
        first = run(model, 0)
        loaded = time.perf_counter() - began
        steps = []
        for round in range(chosen.rounds):
            began = time.perf_counter()
            run(model, round + 1)
            steps.append((time.perf_counter() - began) / chosen.steps)
        peak = torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else 0.0
        return loaded, steps, peak, first

    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        path = chosen.model or Path(folder) / "kontext_random.safetensors"
        if chosen.model is None:
            write_model(path, chosen.blocks)
        loaders = {
            "ComfyUI": lambda: comfy.sd.load_diffusion_model(str(path)),
            "Load Kontext (FP8)": lambda: comfyui.load(path, pruned=True).model,
        }
        results = {}
        for name, load in loaders.items():
            loaded, steps, peak, results[name] = measured(load)
            print(
                f"{name}: {statistics.median(steps):.4f} s a step, first run {loaded:.1f} s, peak {peak:.2f} GB, "
                f"on {comfy.model_management.get_torch_device_name(device)}"
            )
        stock, ours = results.values()
        print(f"latents apart: {float((ours - stock).norm() / stock.norm()):.2e}")


if __name__ == "__main__":
    main()
