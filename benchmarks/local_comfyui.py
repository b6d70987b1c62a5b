"""Load Kontext (FP8) beside ComfyUI's own loader: seconds a step, seconds to load, memory, how far apart.

COMFYUI_PYTHON benchmarks/local_comfyui.py COMFYUI_PATH [--model FILE] [--plain] [--blocks 19,38] [--width 3072]
[--side 1024] [--tokens 512] [--steps 8] [--rounds 3] [--loaders comfyui,fast,ours,stored,lora,compiled,order]
[--turns] [--profile] [--first N] [--notes FILE [--of TEXT]] [--folder DIR]
[-- OPTIONS OF COMFYUI, such as --cpu, --disable-dynamic-vram or --supports-fp8-compute]

Run it in ComfyUI's own Python, on the machine whose figures are wanted; on a GPU the options can be left out. Without
--model a random model of Kontext's width with that many double and single blocks is written in the released layout, or
with --plain as a file that was only cast to FP8. Each loader samples the same noise, prompt and reference with the
stock KSampler; the figures are medians. `fast` is ComfyUI's own loader as `--fast fp8_matrix_mult` has it, which
changes plain files only; `order` is ours without torch's own choice of attention. `stored`, ours without FP8 products,
is what the others' latents are compared with, if it is among them. Dynamic VRAM and its allocator are on where ComfyUI
itself would have them on. --turns: all models stay loaded, for a GPU with room for them, and take turns; otherwise one
after the other. --profile: one more run of each, of three steps, which says what the device and the computer did in
it. --first: how many steps the first run takes, if not all. --notes: each row goes into that file as well, as gpu.py
reads it, once it is known; `of` follows its name.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import statistics
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
CONTEXT, POOLED = 4096, 768
LOADERS = {
    "comfyui": "ComfyUI's own",
    "fast": "ComfyUI's own, --fast fp8_matrix_mult",
    "ours": "Load Kontext (FP8)",
    "stored": "Load Kontext (FP8), stored only",
    "lora": "Load Kontext (FP8), LoRA of rank 16 on every layer",
    "compiled": "Load Kontext (FP8), compiled",
    "order": "Load Kontext (FP8), attention in ComfyUI's order of kernels",
}


def arguments() -> argparse.Namespace:
    own, theirs = sys.argv[1:], []
    if "--" in own:
        own, theirs = own[: own.index("--")], own[own.index("--") + 1 :]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tree", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--blocks", default="19,38")
    parser.add_argument("--width", type=int, default=3072)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--loaders", default="comfyui,ours,stored")
    parser.add_argument("--turns", action="store_true")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--first", type=int)
    parser.add_argument("--notes", type=Path)
    parser.add_argument("--of", default="")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where the file is written")
    chosen = parser.parse_args(own)
    chosen.loaders = chosen.loaders.split(",")
    if unknown := set(chosen.loaders) - set(LOADERS):
        parser.error(f"no such loaders: {', '.join(sorted(unknown))}")
    sys.path[:0] = [str(chosen.tree), str(REPOSITORY / "benchmarks"), str(REPOSITORY / "tests")]
    sys.argv = ["main.py", *theirs]
    return chosen


def begin_as_comfyui_does() -> None:
    """What ComfyUI's main.py does before and after it imports torch, as far as memory is concerned."""
    import comfy.options

    comfy.options.enable_args_parsing()
    import cuda_malloc  # noqa: F401  (chooses torch's allocator)
    from comfy.cli_args import args, enables_dynamic_vram

    try:
        import comfy_aimdo.control as dynamic
    except ImportError:
        return
    if not enables_dynamic_vram():
        return
    dynamic.init(nvml_pressure=not args.disable_nvml_pressure)
    import comfy.memory_management
    import comfy.model_management
    import comfy.model_patcher

    devices = comfy.model_management.get_all_torch_devices()
    headroom = int(args.vram_headroom * 2**30)
    if comfy.model_management.is_nvidia() and dynamic.init_devices((device.index, headroom) for device in devices):
        comfy.model_patcher.CoreModelPatcher = comfy.model_patcher.ModelPatcherDynamic
        comfy.memory_management.aimdo_enabled = True


def import_pack() -> None:
    """The pack as `kontext_bridge`, which need not be installed beside ComfyUI."""
    locations = [str(REPOSITORY)]
    spec = importlib.util.spec_from_file_location(
        "kontext_bridge", REPOSITORY / "__init__.py", submodule_search_locations=locations
    )
    assert spec is not None
    sys.modules["kontext_bridge"] = importlib.util.module_from_spec(spec)


def loaders_of(path: Path) -> dict[str, Callable[[], Any]]:
    import comfy.sd
    import torch
    from comfy.cli_args import PerformanceFeature, args
    from kontext_bridge.kontext.comfyui import load as comfyui
    from kontext_bridge.kontext.fp8.compute import Compute

    def ours(**options: Any) -> Any:
        found = comfyui.load(path, pruned=True, **options)
        print("    " + found.description.replace("\n", "\n    "), flush=True)
        return found.model

    def fast() -> Any:
        before = args.fast
        args.fast = {*before, PerformanceFeature.Fp8MatrixMultiplication}
        try:
            return comfy.sd.load_diffusion_model(str(path))
        finally:
            args.fast = before

    def with_lora() -> Any:
        import full_size
        from kontext_bridge.kontext.comfyui.lora import size_of

        model, generator = ours(), torch.Generator().manual_seed(3)
        tensors = full_size.lora_tensors(16, size_of(model))
        tensors = {name: torch.randn(t.shape, generator=generator).to(t) * 0.01 for name, t in tensors.items()}
        return comfy.sd.load_lora_for_models(model, None, tensors, 0.8, 0)[0]

    def in_comfyuis_order() -> Any:
        model = ours()
        model.model_options["transformer_options"].pop("optimized_attention_override", None)
        return model

    return {
        "comfyui": lambda: comfy.sd.load_diffusion_model(str(path)),
        "fast": fast,
        "ours": ours,
        "stored": lambda: ours(compute=Compute.STORAGE),
        "lora": with_lora,
        "compiled": lambda: ours(compiled=True),
        "order": in_comfyuis_order,
    }


class Card:
    """Memory of the device, whoever has taken it, and a clock that waits for the device."""

    def __init__(self, device: Any) -> None:
        self.device = device

    def used(self) -> float:
        import torch

        if self.device.type != "cuda":
            return 0.0
        free, total = torch.cuda.mem_get_info(self.device)
        return (total - free) / 1e9

    def now(self) -> float:
        import torch

        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    @contextmanager
    def watched(self) -> Iterator[list[float]]:
        """The most memory that was in use within the block, in GB: the last of the list."""
        most, over = [self.used()], threading.Event()

        def watch() -> None:
            while not over.wait(0.02):
                most[0] = max(most[0], self.used())

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield most
        finally:
            over.set()
            watcher.join()


class Edit:
    """One edit with the stock KSampler."""

    def __init__(self, chosen: argparse.Namespace, card: Card) -> None:
        import torch

        side = chosen.side // 8
        generator = torch.Generator().manual_seed(0)

        def random(*shape: int) -> Any:
            return torch.randn(*shape, generator=generator)

        options = {
            "pooled_output": random(1, POOLED),
            "guidance": 2.5,
            "reference_latents": [random(1, 16, side, side)],
        }
        self.prompt = [[random(1, chosen.tokens, CONTEXT), options]]
        self.empty = {"samples": torch.zeros(1, 16, side, side)}
        self.steps, self.card = chosen.steps, card

    def __call__(self, model: Any, seed: int, steps: int | None = None) -> tuple[Any, float, list[float]]:
        """The latent, the seconds of the whole run, and those of each step but the first."""
        import latent_preview

        import nodes

        ends: list[float] = []
        latent_preview.prepare_callback = lambda *_: lambda *_: ends.append(self.card.now())
        began = self.card.now()
        sampler = (model, seed, steps or self.steps, 1.0, "euler", "simple")
        (out,) = nodes.KSampler().sample(*sampler, self.prompt, self.prompt, self.empty)
        taken = self.card.now() - began
        return out["samples"], taken, [end - start for start, end in pairwise(ends)]


def profiled(title: str, edit: Edit, model: Any, steps: int = 3) -> dict[str, float]:
    """Of one run, a step's share: kernels, what the computer waited for, and where each of the two spent its time.

    Gives which part of the device's time each kind of work took.
    """
    from profiles import on_gpu, quantising_annotated, shares
    from torch.profiler import ProfilerActivity, profile

    cuda = edit.card.device.type == "cuda"
    watched = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with quantising_annotated(), profile(activities=watched) as seen:
        edit(model, 99, steps)
    events = seen.key_averages()
    kernels = [event for event in events if on_gpu(event)]
    number, total = sum(event.count for event in kernels), sum(event.self_device_time_total for event in kernels)
    print(f"{title}: {number / steps:.0f} kernels a step, {total / steps / 1e3:.1f} ms in them", flush=True)
    longest = sorted(kernels, key=lambda event: -event.self_device_time_total)[:12]
    computer = [event for event in events if str(event.device_type).endswith("CPU")]
    waits = [event for event in computer if "Synchronize" in event.key or "Memcpy" in event.key]
    slowest = sorted(computer, key=lambda event: -event.self_cpu_time_total)[:18]
    rows = [("device", event, event.self_device_time_total) for event in longest]
    rows += [("computer", event, event.self_cpu_time_total) for event in dict.fromkeys([*waits, *slowest])]
    for where, event, microseconds in rows:
        print(f"    {where:9}{microseconds / steps / 1e3:8.2f} ms {event.count / steps:6.0f} {event.key[:90]}")
    return shares(seen.events())


def main() -> None:
    chosen = arguments()
    begin_as_comfyui_does()
    import comfy.memory_management
    import comfy.model_management
    import comfy.utils
    import torch

    comfy.utils.set_progress_bar_enabled(False)
    logging.basicConfig(level=logging.INFO, format="    %(message)s", stream=sys.stdout)
    import_pack()
    from gpu_bench import step_flops
    from kontext_bridge.kontext.checkpoint.layers import Size
    from local_fullsize import write_full_size

    device = comfy.model_management.get_torch_device()
    card = Card(device)
    edit = Edit(chosen, card)
    name = comfy.model_management.get_torch_device_name(device)
    dynamic = "on" if getattr(comfy.memory_management, "aimdo_enabled", False) else "off"
    print(f"{name}, torch {torch.__version__}, dynamic VRAM {dynamic}", flush=True)
    models: dict[str, Any] = {}
    latents: dict[str, Any] = {}
    told: dict[str, str] = {}
    failed: list[str] = []
    peaks: dict[str, float] = {}
    parts: dict[str, dict[str, float]] = {}
    runs: dict[str, list[float]] = {loader: [] for loader in chosen.loaders}
    steps: dict[str, list[float]] = {loader: [] for loader in chosen.loaders}

    def begin(loader: str) -> None:
        before = card.used()
        with card.watched() as most:
            began = card.now()
            models[loader] = loaders[loader]()
            loaded = card.now() - began
            _, first, _ = edit(models[loader], 0, chosen.first)
        peaks[loader] = most[0]
        told[loader] = f"loaded in {loaded:.1f} s, first run {first:.1f} s, memory {before:.1f} to {most[0]:.1f} GB"
        print(f"{LOADERS[loader]}: {told[loader]}", flush=True)

    def tried(do: Callable[..., None], loader: str, *rest: int) -> None:
        # Time on a GPU is rare: what one loader cannot do must not cost the others' figures.
        if loader in failed:
            return
        try:
            do(loader, *rest)
        except Exception:
            failed.append(loader)
            print(f"{LOADERS[loader]} failed:\n{traceback.format_exc()}", flush=True)

    def measure(loader: str, round: int) -> None:
        with card.watched() as most:
            latent, run, later = edit(models[loader], round + 1)
        latents.setdefault(loader, latent)
        peaks[loader] = max(peaks[loader], most[0])
        runs[loader].append(run)
        steps[loader] += later

    def told_of(loader: str) -> None:
        parts[loader] = profiled(LOADERS[loader], edit, models[loader])

    def apart(loader: str) -> float:
        truth = latents.get("stored", next(iter(latents.values())))
        return float((latents[loader] - truth).norm() / truth.norm())

    def note(loader: str) -> None:
        """What is known of a loader so far; of one that failed, that it did."""
        if chosen.notes is None:
            return
        row: dict[str, Any] = {"kind": "row", "what": f"in ComfyUI: {LOADERS[loader]}{chosen.of}"}
        if steps[loader]:
            step = statistics.median(steps[loader])
            row |= {"step": step, "edit": statistics.median(runs[loader]), "rate": flops / step / 1e12}
            row |= {"peak": peaks[loader] if card.device.type == "cuda" else None, "apart": apart(loader)}
            row |= {"shares": parts.get(loader, {}), "note": told[loader]}
        if loader in failed:
            row["note"] = "failed: see the log"
        with chosen.notes.open("a") as file:
            file.write(json.dumps(row) + "\n")

    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder, torch.inference_mode():
        path = chosen.model or Path(folder) / "kontext_random.safetensors"
        doubles, singles = map(int, chosen.blocks.split(","))
        size = Size(chosen.width, doubles, singles, CONTEXT, POOLED)
        flops = step_flops(size, chosen.tokens, 2 * (chosen.side // 16) ** 2)
        if chosen.model is None:
            write_full_size(path, size, scaled=not chosen.plain)
        loaders = loaders_of(path)
        for loader in chosen.loaders:
            if not chosen.turns:
                models.clear()
                comfy.model_management.unload_all_models()
                comfy.model_management.soft_empty_cache()
            tried(begin, loader)
            for round in () if chosen.turns else range(chosen.rounds):
                tried(measure, loader, round)
            note(loader)
            if chosen.profile and not chosen.turns:
                tried(told_of, loader)
                note(loader)
        for round in range(chosen.rounds) if chosen.turns else ():
            for loader in chosen.loaders:
                tried(measure, loader, round)
        for loader in chosen.loaders if chosen.turns else ():
            if chosen.profile:
                tried(told_of, loader)
            note(loader)
        models.clear()
        comfy.model_management.unload_all_models()
    measured = [loader for loader in chosen.loaders if runs[loader] and steps[loader]]
    if not measured:
        sys.exit("No loader was measured: give --rounds 1 and --steps 2 at least.")
    print(f"| loader | s a step | s a run of {chosen.steps} | loading and memory | latent, apart | finite |")
    print("|---|---|---|---|---|---|")
    for loader in measured:
        step, run = statistics.median(steps[loader]), statistics.median(runs[loader])
        finite = bool(torch.isfinite(latents[loader]).all())
        print(
            f"| {LOADERS[loader]} | {step:.4f} | {run:.3f} | {told[loader]} | {apart(loader):.2e} | {finite} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
