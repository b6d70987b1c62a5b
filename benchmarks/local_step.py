"""Seconds a step: this sampler on FP8 weights beside diffusers' pipeline on the same numbers written out.

python benchmarks/local_step.py [--hidden 512] [--blocks 2,4] [--side 512] [--steps 4] [--rounds 5] [--dtype float32]

Both run in one process on the same noise, prompt, reference and sigmas, by turns, so that whatever else the machine
does hits both; the figure is the median of the rounds' ratios. On a CPU the seconds are the process's own CPU time
(set OMP_NUM_THREADS=1), which other programs hardly touch; on a GPU they are those of the clock. diffusers gets plain
layers in the compute type, which is more memory and less work than FP8 storage.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxKontextPipeline, FluxTransformer2DModel
from kontext_bridge.kontext.checkpoint.layers import Size
from kontext_bridge.kontext.checkpoint.reading import read_checkpoint
from kontext_bridge.kontext.edit import LatentEdit
from kontext_bridge.kontext.fp8.compute import Compute, Linear
from kontext_bridge.kontext.fp8.formats import dequantise
from kontext_bridge.kontext.latents import noise, pack, unpack
from kontext_bridge.kontext.standalone.denoiser import Conditioning
from kontext_bridge.kontext.standalone.lora import linears_of
from kontext_bridge.kontext.standalone.mount import mount
from kontext_bridge.kontext.standalone.sampler import sample
from kontext_bridge.kontext.standalone.tiny import write_scaled


@torch.no_grad()
def plain_pipeline(model: torch.nn.Module, device: str, dtype: torch.dtype) -> FluxKontextPipeline:
    """diffusers' pipeline on nn.Linear layers that hold what the FP8 layers stand for."""
    plain = FluxTransformer2DModel.from_config(dict(model.config)).to(device, dtype)
    linears: dict[str, Linear] = linears_of(model)
    for name, module in plain.named_modules():
        if name in linears:
            linear = linears[name]
            scale = torch.ones((), device=device) if linear.scale is None else linear.scale
            module.weight.copy_(dequantise(linear.weight, scale, dtype))
            module.bias.copy_(linear.bias)
        elif isinstance(module, torch.nn.RMSNorm):
            module.weight.copy_(model.get_submodule(name).weight)
    scheduler = FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15, base_image_seq_len=256, max_image_seq_len=4096
    )
    nothing = dict.fromkeys(("vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
    pipeline = FluxKontextPipeline(scheduler=scheduler, transformer=plain.eval(), **nothing)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--blocks", default="2,4", help="double,single")
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--text", type=int, default=512)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--compute", default="auto", choices=[c.value for c in Compute])
    options = parser.parse_args()
    doubles, singles = map(int, options.blocks.split(","))
    size = Size(options.hidden, doubles, singles, context=1024, pooled=768)
    dtype = getattr(torch, options.dtype)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kontext_mid.safetensors"
        write_scaled(path, size)
        checkpoint = read_checkpoint(path)
        model = mount(checkpoint, dtype=dtype, device=options.device, compute=Compute(options.compute))
        compare(model, size, options, dtype)


def compare(model: torch.nn.Module, size: Size, options: argparse.Namespace, dtype: torch.dtype) -> None:
    pipeline = plain_pipeline(model, options.device, dtype)
    h = options.side // 8
    edit = LatentEdit(options.side, options.side, options.steps)
    conditioning = Conditioning(torch.randn(1, options.text, size.context), torch.randn(1, size.pooled))
    reference = torch.randn(1, 16, h, h)

    def ours() -> torch.Tensor:
        return sample(model, edit, conditioning, [reference])

    def theirs() -> torch.Tensor:
        out = pipeline(
            image=reference,
            prompt_embeds=conditioning.text.to(options.device, dtype),
            pooled_prompt_embeds=conditioning.pooled.to(options.device, dtype),
            latents=pack(noise(0, 1, h, h)),
            height=options.side,
            width=options.side,
            max_area=options.side**2,
            num_inference_steps=options.steps,
            guidance_scale=2.5,
            output_type="latent",
        )
        return unpack(out.images, h, h).float()

    def timed(run: object) -> float:
        clock = time.process_time if options.device == "cpu" else time.perf_counter
        started = clock()
        run()  # type: ignore[operator]
        if options.device != "cpu":
            torch.cuda.synchronize()
        return (clock() - started) / options.steps

    a, b = ours(), theirs()
    tokens = options.text + h * h // 2
    print(
        f"hidden {size.hidden}, {size.doubles}+{size.singles} blocks, {tokens} tokens, {options.steps} steps, "
        f"{options.dtype} on {options.device}; results differ by {((a - b).norm() / b.norm()).item():.1e}"
    )
    pairs = []
    for number in range(options.rounds):
        order = (ours, theirs) if number % 2 else (theirs, ours)
        times = {run.__name__: timed(run) for run in order}
        pairs.append((times["ours"], times["theirs"]))
        print(f"  ours {times['ours']:.3f} s a step, diffusers {times['theirs']:.3f}")
    ratio = statistics.median(o / t for o, t in pairs)
    print(
        f"median: ours {statistics.median(o for o, _ in pairs):.3f}, diffusers "
        f"{statistics.median(t for _, t in pairs):.3f} s a step, ratio {ratio:.3f}"
    )


if __name__ == "__main__":
    main()
