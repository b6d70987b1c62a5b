"""Everything about the local side that only a GPU can tell, in one call of a few minutes.

python benchmarks/local_gpu.py [--side 1024] [--steps 28] [--folder DIR] [--quick]

Writes the full-size random FP8 file (12 GB), loads it, and measures at the real sizes of an edit:

1. which FP8 product is taken and why, and how far each layer shape is from the exact product;
2. one linear of each shape: FP8 with its quantisation, FP8 as storage, bfloat16, in TFLOP/s;
3. seconds a step: eager and compiled, FP8 and storage, with peak memory;
4. the difference of the final latent between FP8 and storage over the same steps;
5. the edit with the modulation layers left on the CPU: seconds before the first step, memory saved.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from kontext_bridge.kontext.checkpoint.layers import KONTEXT
from kontext_bridge.kontext.checkpoint.reading import Checkpoint, read_checkpoint
from kontext_bridge.kontext.edit import LatentEdit
from kontext_bridge.kontext.fp8.compute import Compute, Linear
from kontext_bridge.kontext.fp8.devices import ability
from kontext_bridge.kontext.fp8.formats import dequantise, quantise_rows
from kontext_bridge.kontext.latents import noise, pack
from kontext_bridge.kontext.schedule import schedule
from kontext_bridge.kontext.standalone.denoiser import Conditioning, Denoiser
from kontext_bridge.kontext.standalone.mount import mount
from kontext_bridge.kontext.standalone.sampler import sample
from local_fullsize import write_full_size

DEVICE = torch.device("cuda", 0)
SHAPES = ((9216, 3072), (12288, 3072), (21504, 3072), (3072, 12288), (3072, 15360))


def seconds(run: Callable[[], object], rounds: int) -> float:
    """Mean of `rounds` runs after two to warm up, by CUDA's own clock."""
    for _ in range(2):
        run()
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(rounds):
        run()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1000 / rounds


@torch.inference_mode()
def linears(tokens: int) -> None:
    print(f"| rows x columns, {tokens} tokens | FP8 TFLOP/s | storage | bfloat16 | FP8 error |")
    print("|---|---|---|---|---|")
    for n, k in SHAPES:
        q, scale = quantise_rows(torch.randn(n, k, device=DEVICE) / k**0.5)
        scale = scale[:, 0].contiguous()
        bias = torch.zeros(n, device=DEVICE, dtype=torch.bfloat16)
        x = torch.randn(1, tokens, k, device=DEVICE, dtype=torch.bfloat16)
        wide = dequantise(q, scale, torch.bfloat16)
        modes = [Linear(q, scale, bias, Compute.FP8), Linear(q, scale, bias, Compute.STORAGE), Linear(wide, None, bias)]
        rates = [2e-12 * tokens * n * k / seconds(lambda layer=layer, x=x: layer(x), 20) for layer in modes]
        exact = modes[1](x).float()
        error = ((modes[0](x).float() - exact).norm() / exact.norm()).item()
        print(f"| {n} x {k} | " + " | ".join(f"{rate:.0f}" for rate in rates) + f" | {error:.2%} |", flush=True)


def conditioning() -> tuple[Conditioning, Callable[[int], torch.Tensor]]:
    g = torch.Generator().manual_seed(1)
    prompt = Conditioning(
        torch.randn(1, 512, KONTEXT.context, generator=g), torch.randn(1, KONTEXT.pooled, generator=g)
    )
    return prompt, lambda latent: torch.randn(1, 16, latent, latent, generator=g)


def steps(checkpoint: Checkpoint, side: int, count: int, modes: list[tuple[Compute, bool]]) -> None:
    prompt, reference_of = conditioning()
    latent = side // 8
    reference = reference_of(latent)
    sigmas = schedule(count, latent * latent // 4)
    x = pack(noise(0, 1, latent, latent)).to(DEVICE)
    finals: dict[Compute, torch.Tensor] = {}
    for compute, compiled in modes:
        model = mount(checkpoint, device=DEVICE, compute=compute)
        torch.cuda.reset_peak_memory_stats()
        with torch.inference_mode():
            started = time.perf_counter()
            denoiser = Denoiser(model, prompt, [reference], latent, latent, sigmas, 2.5, compiled=compiled)
            torch.cuda.synchronize()
            prepared = time.perf_counter() - started
            started = time.perf_counter()
            denoiser(x, 0)
            torch.cuda.synchronize()
            first = time.perf_counter() - started
            step = seconds(lambda denoiser=denoiser: denoiser(x, 1), 8)
        peak = torch.cuda.max_memory_allocated() / 1e9
        print(
            f"{compute.value}{', compiled' if compiled else ''}: {step * 1000:.0f} ms a step ({step * count:.2f} s for "
            f"{count}), first {first:.1f} s, prepared in {prepared:.2f} s, peak {peak:.2f} GB",
            flush=True,
        )
        if not compiled:
            finals[compute] = sample(model, LatentEdit(side, side, count), prompt, [reference])
        del model, denoiser
        gc.collect()
        torch.cuda.empty_cache()
    if len(finals) == 2:
        a, b = finals[Compute.FP8], finals[Compute.STORAGE]
        print(f"final latent, FP8 against storage: {((a - b).norm() / b.norm()).item():.2%}")


def modulation_on_cpu(checkpoint: Checkpoint, side: int, count: int) -> None:
    prompt, reference_of = conditioning()
    latent = side // 8
    for place in (None, "cpu"):
        started = time.perf_counter()
        model = mount(checkpoint, device=DEVICE, modulation_device=place)
        loaded = time.perf_counter() - started
        resident = torch.cuda.memory_allocated() / 1e9
        with torch.inference_mode():
            started = time.perf_counter()
            Denoiser(model, prompt, [reference_of(latent)], latent, latent, schedule(count, 4096), 2.5)
            torch.cuda.synchronize()
        prepared = time.perf_counter() - started
        where = "on the CPU" if place else "on the GPU"
        print(
            f"modulation {where}: {resident:.2f} GB resident, loaded in {loaded:.1f} s, prepared in {prepared:.2f} s",
            flush=True,
        )
        del model
        gc.collect()
        torch.cuda.empty_cache()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=28)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--quick", action="store_true", help="no compilation")
    options = parser.parse_args()
    print(f"{torch.cuda.get_device_name(DEVICE)}, torch {torch.__version__}, FP8: {ability(DEVICE).why}")
    linears(512 + options.side**2 // 128)
    path = options.folder / "full_kontext_fp8_scaled.safetensors"
    if not path.exists():
        write_full_size(path)
    try:
        checkpoint = read_checkpoint(path)
        modulation_on_cpu(checkpoint, options.side, options.steps)
        modes = [(Compute.STORAGE, False), (Compute.FP8, False)]
        if not options.quick:
            modes += [(Compute.FP8, True), (Compute.STORAGE, True)]
        steps(checkpoint, options.side, options.steps, modes)
    finally:
        path.unlink()


if __name__ == "__main__":
    main()
