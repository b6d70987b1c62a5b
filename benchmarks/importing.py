"""What importing the pack costs beyond torch, as ComfyUI does it: the package, its entry point, every schema.

Measured in fresh interpreters; `comfy_api` is loaded before, as the host has done by then. Prints medians, and exits
with 1 beyond 0.15 s, or where what ComfyUI answers to /object_info for these nodes is 300 KB or more.

usage: python benchmarks/importing.py [--repeats N]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys

BOUND = 0.15
BOUND_KB = 300.0
CODE = """
import time
begin = time.perf_counter()
import torch
after_torch = time.perf_counter()
import asyncio, importlib.util, sys
sys.path.append(importlib.util.find_spec("kontext_bridge").submodule_search_locations[0] + "/headless/shim")
import comfy_api.latest
before = time.perf_counter()
import kontext_bridge
extension = asyncio.run(kontext_bridge.comfy_entrypoint())
for node in asyncio.run(extension.get_node_list()):
    node.GET_SCHEMA()
took = time.perf_counter() - before
import json
from kontext_bridge.headless.__main__ import object_info
told = object_info(asyncio.run(extension.get_node_list()))
print(after_torch - begin, took, len(json.dumps(told)) / 1000)
"""


def measure() -> list[float]:
    """Seconds for torch, and for the pack, and KB of /object_info."""
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    return [float(value) for value in done.stdout.split()]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    runs = [measure() for _ in range(parser.parse_args().repeats)]
    torch, pack, size = (statistics.median(column) for column in zip(*runs, strict=True))
    print(f"import torch: {torch:.3f} s; the pack: {pack:.3f} s (bound {BOUND}); ratio {pack / torch:.3f}")
    print(f"/object_info: {size:.0f} KB (bound {BOUND_KB:.0f})")
    return 1 if pack > BOUND or size >= BOUND_KB else 0


if __name__ == "__main__":
    sys.exit(main())
