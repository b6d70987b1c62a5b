"""Seconds a step of the demo model off ComfyUI, on one thread, and what there is beside the steps.

python benchmarks/demo_step.py [--size 128x128] [--steps 20] [--rounds 7]

One edit at a time, as someone who tries it has it. Both the clock's seconds and the process's own are shown, which
other programs hardly touch, and how busy the machine was.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

import torch
from kontext_bridge.kontext.checkpoint.reading import read_checkpoint
from kontext_bridge.kontext.demo.shipped import demo_files
from kontext_bridge.kontext.edit import LatentEdit
from kontext_bridge.kontext.fp8.compute import Compute
from kontext_bridge.kontext.standalone.mount import mount
from kontext_bridge.kontext.standalone.sampler import sample
from kontext_bridge.kontext.standalone.text import encode_words
from kontext_bridge.kontext.standalone.vae import Autoencoder


def timed(run: Callable[[], object]) -> tuple[float, float]:
    """The clock's seconds, and the process's own."""
    clock, own = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - clock, time.process_time() - own


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="128x128")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    width, height = (int(side) for side in options.size.split("x"))
    demo, edit = demo_files(), LatentEdit(width, height, options.steps)
    autoencoder = Autoencoder(demo.vae, torch.device("cpu"), torch.float32)
    picture = torch.rand(1, height, width, 3, generator=torch.Generator().manual_seed(0))
    reference = autoencoder.encode(picture)
    (said,) = encode_words(demo.text, ["paint the boat red"])
    model = mount(read_checkpoint(demo.transformer), dtype=torch.float32, compute=Compute.STORAGE)
    parts: dict[str, tuple[Callable[[], object], int]] = {
        "a step": (lambda: sample(model, edit, said, [reference]), options.steps),
        "encoding": (lambda: autoencoder.encode(picture), 1),
        "decoding": (lambda: autoencoder.decode(reference), 1),
    }
    print(f"{options.size}, {options.steps} steps, one thread, torch {torch.__version__}; median of {options.rounds}")
    for name, (run, count) in parts.items():
        run()
        found = [timed(run) for _ in range(options.rounds)]
        clock, own = (statistics.median(one[at] for one in found) / count for at in (0, 1))
        print(f"{name:10} {clock:.4f} s by the clock, {own:.4f} s of the process's own")
    print(f"load over the last minute: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
