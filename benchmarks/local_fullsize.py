"""A full-size FP8 file (12 B parameters, random) written, loaded and run once: memory at its peak, and seconds.

python benchmarks/local_fullsize.py [--folder DIR] [--device cpu|cuda] [--side 256] [--dtype float32] [--keep]

Needs 12 GB of disk, and as much memory as the model is to be resident in. The file has the layout of the released
flux1-dev-kontext_fp8_scaled.safetensors as far as it is known: all layers of the blocks and the last modulation in
FP8 with one scale a layer, the rest in bfloat16.
"""

from __future__ import annotations

import argparse
import gc
import json
import struct
import tempfile
import time
from pathlib import Path

import torch
from kontext_bridge.kontext.checkpoint.layers import HEAD, KONTEXT, Role, Size, layers, norms
from kontext_bridge.kontext.checkpoint.reading import read_checkpoint
from kontext_bridge.kontext.fp8.compute import Compute
from kontext_bridge.kontext.latents import noise, pack
from kontext_bridge.kontext.schedule import schedule
from kontext_bridge.kontext.standalone.denoiser import Conditioning, Denoiser
from kontext_bridge.kontext.standalone.mount import mount


def write_full_size(path: Path, size: Size = KONTEXT, *, scaled: bool = True) -> None:
    """Every weight is a window onto one pool of Gaussian FP8 numbers, so that writing costs no more than the disk.

    scaled: with a scale a layer; otherwise the FP8 numbers are the weights themselves, as of a file that was only cast.
    """
    generator = torch.Generator().manual_seed(0)
    spread = 80 if scaled else 1 / size.hidden**0.5
    pool = (torch.randn(1 << 24, generator=generator) * spread).clamp_(-448, 448).to(torch.float8_e4m3fn)
    pool_bytes = pool.view(torch.uint8).numpy().tobytes() * 5
    header: dict[str, object] = {}
    pieces: list[tuple[int, bytes | None]] = []
    position = 0

    def add(name: str, dtype: str, shape: list[int], size: int, data: bytes | None) -> None:
        nonlocal position
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [position, position + size]}
        pieces.append((size, data))
        position += size

    def small(name: str, tensor: torch.Tensor) -> None:
        data = tensor.to(torch.bfloat16).view(torch.uint8).numpy().tobytes()
        add(name, "BF16", list(tensor.shape), len(data), data)

    for layer in layers(size):
        if layer.role is Role.OUTER:
            weight = torch.randn(layer.rows, layer.inputs, generator=generator) / layer.inputs**0.5
            small(f"{layer.bfl}.weight", weight)
        else:
            add(f"{layer.bfl}.weight", "F8_E4M3", [layer.rows, layer.inputs], layer.rows * layer.inputs, None)
            if scaled:
                scale = struct.pack("<f", 1 / 80 / layer.inputs**0.5)
                add(f"{layer.bfl}.scale_weight", "F32", [], 4, scale)
        small(f"{layer.bfl}.bias", torch.randn(layer.rows, generator=generator) * 0.02)
    for norm in norms(size):
        small(f"{norm.bfl}.scale", torch.ones(HEAD))
    if scaled:
        add("scaled_fp8", "F8_E4M3", [0], 0, b"")
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(encoded)) + encoded)
        for number, (bytes_of, data) in enumerate(pieces):
            start = (number * 7919 * 64) % (1 << 24)
            for done in range(0, bytes_of, 1 << 26) if data is None else ():
                file.write(pool_bytes[start : start + min(1 << 26, bytes_of - done)])
            if data is not None:
                file.write(data)


def status(key: str) -> float:
    """A line of this process's memory in GB: VmHWM is the peak, VmRSS what is resident, RssAnon without files."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024 / 1e9
    return float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--text", type=int, default=512, help="text tokens")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--compute", default="auto", choices=[c.value for c in Compute])
    parser.add_argument("--keep", action="store_true", help="leave the file for the next run")
    options = parser.parse_args()
    path = options.folder / "full_kontext_fp8_scaled.safetensors"
    if not path.exists():
        started = time.perf_counter()
        write_full_size(path)
        print(f"written: {path.stat().st_size / 1e9:.2f} GB in {time.perf_counter() - started:.1f} s")
        gc.collect()
    try:
        measure(path, options)
    finally:
        if not options.keep:
            path.unlink()


def measure(path: Path, options: argparse.Namespace) -> None:
    import diffusers  # noqa: F401  (its import is no part of loading)
    from diffusers import FluxTransformer2DModel  # noqa: F401

    # Writing "5" resets the peak, so that it is that of loading alone.
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    started = time.perf_counter()
    checkpoint = read_checkpoint(path)
    dtype = getattr(torch, options.dtype)
    model = mount(checkpoint, dtype=dtype, device=options.device, compute=Compute(options.compute))
    seconds = time.perf_counter() - started
    gc.collect()
    resident, peak = status("VmRSS"), status("VmHWM")
    print(checkpoint.describe())
    print(f"before: {before:.2f} GB resident. loaded in {seconds:.1f} s (every weight read and checked)")
    print(
        f"peak {peak:.2f} GB, resident {resident:.2f} GB ({status('RssAnon'):.2f} of them not the file's own pages): "
        f"peak above resident {peak - resident:.3f} GB"
    )
    latent = options.side // 8
    conditioning = Conditioning(torch.randn(1, options.text, KONTEXT.context), torch.randn(1, KONTEXT.pooled))
    reference = torch.randn(1, 16, latent, latent)
    sigmas = schedule(28, latent * latent // 4)
    with torch.inference_mode():
        started = time.perf_counter()
        denoiser = Denoiser(model, conditioning, [reference], latent, latent, sigmas, 2.5)
        prepared = time.perf_counter() - started
        started = time.perf_counter()
        velocity = denoiser(pack(noise(0, 1, latent, latent)), 0)
        finite = bool(torch.isfinite(velocity).all())
        forward = time.perf_counter() - started
    tokens = options.text + latent * latent // 2
    print(f"modulation of 28 steps, text, reference and rotary tables: {prepared:.1f} s", flush=True)
    print(
        f"one forward at {options.side}x{options.side}, {tokens} tokens, {options.dtype}: {forward:.1f} s, "
        f"finite: {finite}"
    )
    print(f"peak of the whole run {status('VmHWM'):.2f} GB")


if __name__ == "__main__":
    main()
