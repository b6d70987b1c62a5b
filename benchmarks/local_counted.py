"""What a step of Load Kontext (FP8) takes beside ComfyUI's own loader, counted on GPUs that are only pretended.

COMFYUI_PYTHON benchmarks/local_counted.py [COMFYUI_PATH] [--side 1024] [--references 1] [--whole] [--only TEXT]
[-- OPTIONS OF COMFYUI, such as --fast fp8_matrix_mult]

Run it in ComfyUI's own Python, on any machine: nothing is computed. It prints a table: kernels that a later step of an
edit launches, the bytes that they read and write, the memory that it takes beside the weights, copies between the
computer's memory and the GPU's, and reads that make the computer wait. The file is the released layout at full width,
sparse; all blocks of a kind cost the same, so that few are counted and the others reckoned, unless --whole is given.
A cache's savings are not seen, and no seconds. Of a compiler the kernels that quantise are seen, where there is Triton:
torch for Linux brings it.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import logging
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
FEW = ((1, 2), (2, 2), (1, 3))


def arguments() -> argparse.Namespace:
    own, theirs = sys.argv[1:], []
    if "--" in own:
        own, theirs = own[: own.index("--")], own[own.index("--") + 1 :]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tree", type=Path, nargs="?", default=os.environ.get("COMFYUI_PATH"))
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--references", type=int, default=1)
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--only", default="", help="settings whose titles hold this text")
    chosen = parser.parse_args(own)
    if chosen.tree is None:
        parser.error("name ComfyUI's folder, or set COMFYUI_PATH")
    sys.path[:0] = [str(chosen.tree), str(REPOSITORY / "tests"), str(REPOSITORY / "tests" / "local")]
    sys.argv = ["main.py", "--cpu", "--use-pytorch-cross-attention", *theirs]
    return chosen


def import_pack() -> None:
    """The pack as `kontext_bridge`, which need not be installed beside ComfyUI."""
    spec = importlib.util.spec_from_file_location(
        "kontext_bridge", REPOSITORY / "__init__.py", submodule_search_locations=[str(REPOSITORY)]
    )
    assert spec is not None
    sys.modules["kontext_bridge"] = importlib.util.module_from_spec(spec)


def main() -> None:
    chosen = arguments()
    import comfy.options

    comfy.options.enable_args_parsing()
    import torch

    import_pack()
    import cards
    import full_size
    import pretended_comfyui as comfyui
    from kontext_bridge.kontext.checkpoint.layers import KONTEXT

    logging.disable(logging.WARNING)
    settings = {
        "FP8, RTX 40 on Linux": (cards.RTX_40_WITH_TRITON, True),
        "FP8, RTX 40 on Linux, no Triton": (cards.RTX_40, True),
        "FP8, RTX 40 on Windows": (cards.RTX_40_ON_WINDOWS, True),
        "FP8, RTX 40 on Windows, Triton": (cards.RTX_40_ON_WINDOWS_WITH_TRITON, True),
        "FP8, RTX 40 on Windows, no CUDA 13": (cards.RTX_40_ON_WINDOWS, False),
        "stored, RTX 30": (cards.RTX_30, True),
        "stored, RTX 30, no CUDA 13": (cards.RTX_30, False),
    }
    loaders = {
        "ComfyUI": comfyui.stock,
        "ours": comfyui.ours,
        "ours, LoRA": lambda path: comfyui.with_lora(comfyui.ours(path)),
    }
    print("| setting | loader | kernels | GB moved | GB of memory | copies | reads |\n|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():

        def step(setting: str, loader: str, doubles: int, singles: int) -> tuple[int, ...]:
            size = replace(KONTEXT, doubles=doubles, singles=singles)
            path = Path(folder) / f"kontext_{doubles}_{singles}.safetensors"
            if not path.exists():
                full_size.write_sparse(path, size=size)
            card, kernels = settings[setting]
            with comfyui.comfyui_on(card, kernels=kernels) as gpu, contextlib.redirect_stderr(io.StringIO()):
                model = loaders[loader](path)
                options: dict[str, Any] = {"references": chosen.references, "side": chosen.side // 8}
                last = comfyui.steps_of(gpu, model, **options)[-1]
            return len(last.kernels), last.bytes, len(last.moves), len(last.waits), last.peak

        for setting in settings:
            if chosen.only not in setting:
                continue
            for loader in loaders:
                if chosen.whole:
                    found = step(setting, loader, KONTEXT.doubles, KONTEXT.singles)
                else:
                    few, double, single = (step(setting, loader, *blocks) for blocks in FEW)
                    more = KONTEXT.doubles - FEW[0][0], KONTEXT.singles - FEW[0][1]
                    grown = zip(few[:-1], double, single, strict=False)
                    found = (*(f + more[0] * (d - f) + more[1] * (s - f) for f, d, s in grown), few[-1])
                kernels, moved, moves, waits, peak = found
                print(
                    f"| {setting} | {loader} | {kernels} | {moved / 1e9:.1f} | {peak / 1e9:.2f} | {moves} | {waits} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
