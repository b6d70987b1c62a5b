"""Everything about the local side off ComfyUI that only a GPU can tell, in one call of a few minutes.

python benchmarks/local_gpu.py [--parts products,layers,steps,compiled] [--model FILE] [--side 1024] [--steps 28]
[--blocks 19,38] [--folder DIR] [--device cuda]

products  which FP8 product is taken and why, whether quantising in one kernel is, and that all ways give the same bits
layers    a linear of each shape: FP8 by each product, FP8 as storage and bfloat16, in TFLOP/s, and how far each is from
          float32, for rows of one size and for uneven ones
steps     seconds a step and memory: stored, FP8, with LoRA; kernels of a step as a profiler sees them; how far the
          final latents are apart; a batch of two beside each picture alone; the modulation layers left on the CPU
compiled  seconds a step of compiled blocks, FP8 and stored, and how long compiling takes

Without --model a full-size random FP8 file (12 GB) is written. A part that fails says so, and the others go on. With
--device cpu and a few blocks it runs anywhere, as a trial of the script itself.
"""

from __future__ import annotations

import argparse
import gc
import logging
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from gpu_bench import GUIDANCE, TEXT, Edit, say, wait
from kontext_bridge.kontext.checkpoint.layers import KONTEXT
from kontext_bridge.kontext.checkpoint.reading import Checkpoint, read_checkpoint
from kontext_bridge.kontext.edit import LatentEdit
from kontext_bridge.kontext.fast.tally import apart
from kontext_bridge.kontext.fp8 import devices, quantising
from kontext_bridge.kontext.fp8.branches import Branch
from kontext_bridge.kontext.fp8.compute import Compute, Linear
from kontext_bridge.kontext.fp8.devices import ability
from kontext_bridge.kontext.fp8.formats import E4M3, Product, dequantise, quantise_input
from kontext_bridge.kontext.fp8.products import scaled_mm, widened
from kontext_bridge.kontext.standalone.denoiser import Denoiser
from kontext_bridge.kontext.standalone.mount import mount
from kontext_bridge.kontext.standalone.sampler import sample
from local_fullsize import write_full_size

SHAPES = ((9216, 3072), (12288, 3072), (21504, 3072), (3072, 12288), (3072, 15360))
STEPS_TAKEN = 4


def seconds(device: torch.device, run: Callable[[], object], rounds: int) -> float:
    """Mean of `rounds` runs after two to warm up."""
    for _ in range(2):
        run()
    began = wait(device)
    for _ in range(rounds):
        run()
    return (wait(device) - began) / rounds


@torch.inference_mode()
def products(options: argparse.Namespace) -> None:
    device = options.device
    began = time.perf_counter()
    found = ability(device)
    say(f"FP8: {found.product} - {found.why}; found out in {wait(device) - began:.1f} s")
    say(f"division writes FP8: {quantising._WRITES.get(device)}; one kernel: {quantising._JOINS.get(device)}")
    ways = {"plain": quantising._plain, "written": quantising._written}
    if device.type == "cuda" and quantising.has_triton():
        try:
            x = torch.randn(4096, 3072, device=device, dtype=torch.bfloat16)
            quantising._joined(x, x[:1].clone(), True)
            ways["joined"] = quantising._joined
        except Exception:
            say(f"There is no quantising in one kernel here:\n{traceback.format_exc()[-1500:]}")
    say("| rows x columns | mean | together | " + " | ".join(f"{way}, ms" for way in ways) + " | numbers apart |")
    say("|" + "---|" * (len(ways) + 4))
    for shape in ((4096, 3072), (8704, 3072), (8704, 12288), (8704, 15360), (77, 3072)):
        x = torch.randn(*shape, device=device, dtype=torch.bfloat16)
        x *= torch.logspace(-3, 3, len(x), device=device, dtype=torch.bfloat16)[:, None]
        for mean, together in ((None, False), (x[:1].clone(), False), (x[:1].clone(), True)):
            plain = quantising._plain(x, mean, together)
            taken, wrong = [], 0
            for way in ways.values():
                found_by = way(x, mean, together)
                wrong += sum(int((a != b).sum()) for a, b in zip(map(_bits, found_by), map(_bits, plain), strict=True))
                taken.append(seconds(device, lambda way=way, x=x, m=mean, t=together: way(x, m, t), 10) * 1e3)
            times = " | ".join(f"{one:.3f}" for one in taken)
            say(f"| {shape[0]} x {shape[1]} | {mean is not None} | {together} | {times} | {wrong} |")


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().view(torch.uint8)


@torch.inference_mode()
def layers(options: argparse.Namespace) -> None:
    device = options.device
    has = [product for product in Product if devices._refusal(device, product) is None]
    tokens = 512 + options.side**2 // 128
    shapes = SHAPES if options.blocks is None else ((256, 128), (128, 512))
    say(f"{tokens} tokens; TFLOP/s, quantisation included; distances from float32")
    say("| rows x columns | behind a norm | way | TFLOP/s | TFLOP/s, product alone | even rows | uneven rows |")
    say("|---|---|---|---|---|---|---|")
    for n, k in shapes:
        q = (torch.randn(n, k, device=device) * 80).clamp_(-448, 448).to(E4M3)
        scale = torch.full((), 1 / 80 / k**0.5, device=device)
        bias = torch.randn(n, device=device, dtype=torch.bfloat16)
        wide = dequantise(q, scale, torch.bfloat16)
        even = torch.randn(1, tokens, k, device=device, dtype=torch.bfloat16)
        sizes = torch.logspace(-2, 2, tokens, device=device, dtype=torch.bfloat16)[:, None]
        flops = 2e-12 * tokens * n * k
        number = scale.item()
        for centred in (False, True):
            # Behind a norm rows share a part, and are never uneven.
            inputs = [even + 3 * torch.randn(k, device=device).to(even)] if centred else [even, even * sizes]
            truths = [widened(x.float(), q, scale, bias) for x in inputs]
            ways: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
                product.value: lambda x, p=product, c=centred, q=q, s=scale, b=bias: scaled_mm(
                    x, quantise_input(x, p, centred=c), q, s, b, p
                )
                for product in has
            }
            if not centred:
                ways["stored"] = lambda x, q=q, s=scale, b=bias, m=number: widened(x, q, s, b, number=m)
                ways["bfloat16"] = lambda x, w=wide, b=bias: torch.nn.functional.linear(x, w, b)
            for name, way in ways.items():
                rate = flops / seconds(device, lambda way=way, x=inputs[0]: way(x), 10)
                alone = rate
                if name in {product.value for product in has}:
                    product = Product(name)
                    given = (inputs[0], quantise_input(inputs[0], product, centred=centred), q, scale, bias, product)
                    alone = flops / seconds(device, lambda given=given: scaled_mm(*given), 10)
                # Each row by itself, as what follows sees it.
                errors = [_by_row(way(x), truth) for x, truth in zip(inputs, truths, strict=True)]
                told = " | ".join(f"{error:.2e}" for error in (*errors, *[float("nan")] * (2 - len(errors))))
                say(f"| {n} x {k} | {centred} | {name} | {rate:.0f} | {alone:.0f} | {told} |")


def _by_row(out: torch.Tensor, truth: torch.Tensor) -> float:
    strayed = (out.float() - truth).norm(dim=-1) / truth.norm(dim=-1)
    return float(strayed.max())


class FileEdit(Edit):
    """One edit with the model of a file."""

    def __init__(self, options: argparse.Namespace, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint.size, options.side, options.steps, TEXT, options.device)

    def denoiser(self, model: Any, **more: Any) -> Denoiser:
        given = (model, self.prompt, [self.reference], self.latent, self.latent, self.sigmas, GUIDANCE)
        return Denoiser(*given, **more)

    def final(self, model: Any, batch: int = 1, seed: int = 0) -> torch.Tensor:
        edit = LatentEdit(self.side, self.side, STEPS_TAKEN, batch=batch, seed=seed)
        return sample(model, edit, self.prompt, [self.reference])


def compute_by(layers: list[Linear], compute: Compute) -> None:
    for layer in layers:
        layer.compute = compute


@torch.inference_mode()
def timed(title: str, options: argparse.Namespace, edit: FileEdit, model: Any, *, compiled: bool = False) -> Denoiser:
    device = options.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    began = wait(device)
    denoiser = edit.denoiser(model, compiled=compiled)
    prepared = wait(device) - began
    began = wait(device)
    denoiser(edit.tokens, 0)
    first = wait(device) - began
    taken = []
    for number in range(8):
        began = wait(device)
        denoiser(edit.tokens, 1 + number % (options.steps - 1))
        taken.append(wait(device) - began)
    peak = torch.cuda.max_memory_allocated() / 1e9 if device.type == "cuda" else 0.0
    say(
        f"{title}: {sorted(taken)[4] * 1e3:.1f} ms a step (least {min(taken) * 1e3:.1f}), first {first:.1f} s, "
        f"{options.steps} steps prepared in {prepared:.2f} s, peak {peak:.2f} GB"
    )
    return denoiser


def loaded(options: argparse.Namespace, checkpoint: Checkpoint, **more: Any) -> tuple[Any, list[Linear]]:
    """A model, and those of its layers that may be multiplied in FP8."""
    began = wait(options.device)
    model = mount(checkpoint, device=options.device, **more)
    resident = torch.cuda.memory_allocated() / 1e9 if options.device.type == "cuda" else 0.0
    say(f"loaded {more or ''} in {wait(options.device) - began:.1f} s, {resident:.2f} GB resident")
    return model, [one for one in model.modules() if isinstance(one, Linear) and one.compute is Compute.AUTO]


def add_lora(layers: list[Linear], rank: int = 16) -> None:
    for layer in layers:
        like = {"device": layer.weight.device, "dtype": torch.bfloat16}
        down = torch.randn(rank, layer.in_features, **like) * 0.01
        up = torch.randn(layer.out_features, rank, **like) * 0.01
        layer.branches["style"] = [Branch(down, up, 0)]


def profiled(title: str, options: argparse.Namespace, edit: FileEdit, denoiser: Denoiser) -> None:
    """Kernels of one step, and what of its time is whose."""
    if options.device.type != "cuda":
        return
    from torch.profiler import ProfilerActivity, profile

    with torch.inference_mode(), profile(activities=[ProfilerActivity.CUDA]) as seen:
        denoiser(edit.tokens, 2)
        wait(options.device)
    kernels = [event for event in seen.key_averages() if event.self_device_time_total > 0]
    number, total = sum(event.count for event in kernels), sum(event.self_device_time_total for event in kernels)
    say(f"{title}: {number} kernels a step, {total / 1e3:.1f} ms in them")
    for event in sorted(kernels, key=lambda event: -event.self_device_time_total)[:14]:
        say(f"    {event.self_device_time_total / 1e3:8.2f} ms {event.count:5d} {event.key[:110]}")


def steps(options: argparse.Namespace) -> None:
    checkpoint = read_checkpoint(options.model)
    edit = FileEdit(options, checkpoint)
    model, fast = loaded(options, checkpoint)
    say(ability(options.device).why)
    finals = {}
    for title, compute in (("stored", Compute.STORAGE), ("FP8", Compute.AUTO)):
        compute_by(fast, compute)
        denoiser = timed(title, options, edit, model)
        profiled(title, options, edit, denoiser)
        finals[title] = edit.final(model)
    say(f"latent after {STEPS_TAKEN} steps, FP8 against stored: {apart(finals['FP8'], finals['stored']):.2e}")
    say(f"the same once more, bit for bit: {torch.equal(finals['FP8'], edit.final(model))}")
    both, other = edit.final(model, 2), edit.final(model, seed=1)
    for number, alone in enumerate((finals["FP8"], other)):
        away = apart(both[number : number + 1], alone)
        say(f"picture {number + 1} of a batch of two against the same alone: {away:.2e}, finite {away == away}")
    add_lora(fast)
    denoiser = timed("FP8, LoRA of rank 16 on every layer", options, edit, model)
    profiled("FP8, LoRA", options, edit, denoiser)
    del model, fast, denoiser
    gc.collect()
    model, _ = loaded(options, checkpoint, modulation_device="cpu")
    timed("FP8, modulation on the CPU", options, edit, model)


def compiled(options: argparse.Namespace) -> None:
    checkpoint = read_checkpoint(options.model)
    edit = FileEdit(options, checkpoint)
    model, fast = loaded(options, checkpoint)
    for title, compute in (("FP8", Compute.AUTO), ("stored", Compute.STORAGE)):
        compute_by(fast, compute)
        denoiser = timed(f"{title}, compiled", options, edit, model, compiled=True)
        profiled(f"{title}, compiled", options, edit, denoiser)


PARTS = {part.__name__: part for part in (products, layers, steps, compiled)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--model", type=Path)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=28)
    parser.add_argument("--blocks")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--device", type=torch.device, default=torch.device("cuda", 0))
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="    %(message)s", stream=sys.stdout)
    logging.getLogger("kontext_bridge").setLevel(logging.INFO)
    name = torch.cuda.get_device_name(options.device) if options.device.type == "cuda" else "CPU"
    say(f"{name}, torch {torch.__version__}, CUDA {torch.version.cuda}")
    written = None
    parts = options.parts.split(",")
    if options.model is None and {"steps", "compiled"} & set(parts):
        options.model = written = options.folder / "full_kontext_fp8_scaled.safetensors"
        size = KONTEXT
        if options.blocks is not None:
            doubles, singles = map(int, options.blocks.split(","))
            size = replace(KONTEXT, hidden=256, doubles=doubles, singles=singles)
        write_full_size(written, size)
    failed = []
    try:
        for part in parts:
            say(f"\n## {part}")
            began = time.perf_counter()
            # Time on a GPU is rare: what one part cannot do must not cost the others' figures.
            try:
                PARTS[part](options)
            except Exception:
                failed.append(part)
                say(traceback.format_exc())
            say(f"({part}: {time.perf_counter() - began:.0f} s)")
    finally:
        if written is not None:
            written.unlink()
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
