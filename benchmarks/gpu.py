"""How fast an edit is on this GPU and why, beside others, in one command that ends in a table for RESULTS.md.

python benchmarks/gpu.py [--side 1024] [--steps 28] [--seconds 450] [--rows TEXT,...] [--device cuda]
                         [--comfyui TREE [--comfyui-python PYTHON] [--folder DIR]] [--tiny]

No downloads: FLUX.1 Kontext's full size with random weights, made on the device (12 GB). Every row samples the same
noise, prompt and reference. Of each: ms a step (the median), seconds of a whole edit's transformer (all steps, with
what is done before the first; text encoders and VAE left out), the most memory that torch had, TFLOP/s by the
arithmetic of the exact edit and what part that is of the fastest matrix product measured on this card, which part of
the kernels' time are linear layers, attention, quantising and the rest, and how far the latent is from that of FP8
weights multiplied in 16 bits, which is the first row. Random weights stray in their own way: deviations tell rows
apart, and are no measure of pictures. diffusers rounds time and guidance to 16 bits, which such weights make much of. A
cache ends other calls than it would with Kontext, so its rows tell what a call costs beside the work that it left out.

--comfyui adds ComfyUI's own loader, with and without --fast fp8_matrix_mult, and ours inside it, by local_comfyui.py in
ComfyUI's Python. What is missing or fails is a row that says so. Rows that no time is left for are not begun.

In the repository's root on a GPU machine, with nothing installed there but torch, diffusers, safetensors, numpy, pillow
and requests, at most 8 minutes on an H100:

    mkdir -p /tmp/k && ln -sfn "$PWD" /tmp/k/kontext_bridge && PYTHONUNBUFFERED=1 PYTHONPATH=/tmp/k:$PYTHONPATH \\
        timeout 470 python3 benchmarks/gpu.py --seconds 400 2>&1 | tee "${OUT:-/tmp}/gpu.txt"

Without diffusers, on whose modules the pack's own mount stands too, only the card's rates and ComfyUI's rows are told.
--tiny tries the script itself on any machine.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from gpu_bench import GUIDANCE, HEAD_ROW, Bench, Edit, Row, say, wait
from kontext_bridge.kontext.fast.tally import Tally
from kontext_bridge.kontext.fast.wishes import Wishes
from kontext_bridge.kontext.fp8.compute import Compute, Linear
from kontext_bridge.kontext.fp8.devices import ability
from kontext_bridge.kontext.fp8.formats import E4M3
from kontext_bridge.kontext.latents import pack
from kontext_bridge.kontext.standalone.denoiser import Denoiser
from kontext_bridge.kontext.standalone.sampler import sample

HERE = Path(__file__).resolve().parent


def card_rates(bench: Bench) -> None:
    """TFLOP/s of matrix products at a large square and at a step's own shape: what the card gives at most."""
    device, edit = bench.device, bench.edit
    square = 256 if bench.options.tiny else 8192
    tokens, hidden = 2 * edit.tokens.shape[1] + edit.prompt.text.shape[1], edit.size.hidden
    tokens -= tokens % 16
    for m, k, n in ((square, square, square), (tokens, hidden, 4 * hidden)):
        a, b = (torch.randn(*shape, device=device, dtype=bench.dtype) for shape in ((m, k), (n, k)))
        products: dict[str, Callable[[], object]] = {str(bench.dtype)[6:]: lambda a=a, b=b: a @ b.t()}
        q, w = (tensor.clamp(-448, 448).to(E4M3) for tensor in (a, b))
        one = torch.ones((), device=device)
        rows = torch.ones(m, 1, device=device), torch.ones(1, n, device=device)
        given = {"out_dtype": torch.bfloat16, "use_fast_accum": True}
        products["FP8, tensor-wise"] = lambda q=q, w=w, one=one, given=given: torch._scaled_mm(
            q, w.t(), scale_a=one, scale_b=one, **given
        )
        products["FP8, row-wise"] = lambda q=q, w=w, rows=rows, given=given: torch._scaled_mm(
            q, w.t(), scale_a=rows[0], scale_b=rows[1], **given
        )
        for name, product in products.items():
            what = f"matrix product, {name}, {m}x{k}x{n}"
            try:
                with torch.inference_mode():
                    taken = repeated(device, product, 1 if bench.options.tiny else 30)
            except RuntimeError as error:
                say(f"{what}: {(str(error).splitlines() or [''])[0][:120]}")
                continue
            bench.rates[what] = 2.0 * m * k * n / taken / 1e12
            say(f"{what}: {bench.rates[what]:.1f} TFLOP/s")


def repeated(device: torch.device, run: Callable[[], object], times: int) -> float:
    """Seconds of one run, of many in a row."""
    for _ in range(2):
        run()
    began = wait(device)
    for _ in range(times):
        run()
    return (wait(device) - began) / times


NO_DIFFUSERS = "diffusers is not installed"


def beside_diffusers(bench: Bench) -> None:
    """diffusers' own transformer: 16 bits as it is and compiled, and FP8 that is only stored."""
    ways: dict[str, tuple[float, Callable[[Any], object] | None]] = {
        "diffusers, 16 bits": (60, None),
        "diffusers, FP8 storage (layerwise casting)": (
            60,
            lambda model: model.enable_layerwise_casting(storage_dtype=E4M3, compute_dtype=bench.dtype),
        ),
        "diffusers, 16 bits, compiled": (130, lambda model: model.compile_repeated_blocks(fullgraph=True)),
    }
    for what, (needs, change) in ways.items():
        if importlib.util.find_spec("diffusers") is None:
            bench.rows.append(Row(what, note=NO_DIFFUSERS))
        elif bench.wanted(what, needs):
            with bench.row(what, own_weights=True) as row:
                one_of_diffusers(bench, row, change)


def one_of_diffusers(bench: Bench, row: Row, change: Callable[[Any], object] | None) -> None:
    # Only here, for diffusers may be missing.
    from diffusers_beside import Beside, euler, plain

    model = plain(bench.checkpoint, bench.device, bench.dtype)
    if change is not None:
        change(model)
    bench.loaded()
    velocity = Beside(model, bench.edit, bench.dtype)
    bench.measure(row, velocity, compiled=change is not None)
    began = wait(bench.device)
    tokens = euler(velocity, bench.edit.tokens, bench.edit.sigmas)
    row.edit = wait(bench.device) - began
    bench.compare(row, tokens)


class Mounted:
    """This pack's model off ComfyUI, mounted once, by which layers multiply in FP8 or not."""

    def __init__(self, bench: Bench, modulation: str | None = None) -> None:
        from kontext_bridge.kontext.standalone.mount import mount

        self.bench = bench
        self.model = mount(
            bench.checkpoint, dtype=bench.dtype, device=bench.device, modulation_device=modulation, quantise=False
        )
        self._fast = [one for one in self.model.modules() if isinstance(one, Linear) and one.compute is Compute.AUTO]

    def multiplied(self, compute: Compute) -> None:
        for layer in self._fast:
            layer.compute = compute

    def measure(self, row: Row, *, compiled: bool = False) -> None:
        edit = self.bench.edit
        given = (self.model, edit.prompt, [edit.reference], edit.latent, edit.latent, edit.sigmas, GUIDANCE)
        self.bench.measure(row, Denoiser(*given, compiled=compiled), compiled=compiled)
        self.edit(row, compiled=compiled)

    def edit(self, row: Row, **more: Any) -> None:
        """A whole one, as `sample` makes it."""
        edit = self.bench.edit
        began = wait(self.bench.device)
        latent = sample(self.model, edit.wanted, edit.prompt, [edit.reference], **more)
        row.edit = wait(self.bench.device) - began
        self.bench.compare(row, pack(latent))


def ours(bench: Bench) -> None:
    """This pack's mount off ComfyUI: stored, FP8, its approximations, compiled, and its modulation elsewhere."""
    if importlib.util.find_spec("diffusers") is None:
        bench.rows.append(Row("this pack", note=f"{NO_DIFFUSERS}, on whose modules it stands"))
        return
    with torch.no_grad():
        mounted = Mounted(bench)
    for what, compute in (("this pack, stored only", Compute.STORAGE), ("this pack, FP8", Compute.AUTO)):
        mounted.multiplied(compute)
        if bench.wanted(what, 30):
            with bench.row(what) as row:
                mounted.measure(row)
                row.note = row.note or ("" if compute is Compute.STORAGE else ability(bench.device).why)
    side, mask = bench.edit.side, torch.zeros(1, bench.edit.side, bench.edit.side)
    mask[:, : side // 2, : side // 2] = 1
    options = {
        "cache 0.1": Wishes(cache=0.1),
        "mask of a quarter": Wishes(settled=0.3, mask=mask),
        "reference 2": Wishes(smaller=2.0),
        "cache, mask and reference": Wishes(cache=0.1, settled=0.3, mask=mask, smaller=2.0),
    }
    for name, wishes in options.items():
        what = f"this pack, FP8, {name}"
        if bench.wanted(what, 15):
            with bench.row(what) as row:
                tally = Tally()
                mounted.edit(row, fast=wishes, tally=tally)
                row.step = None if row.edit is None else row.edit / bench.edit.steps
                row.note = "; ".join(tally.lines())
    what = "this pack, FP8, compiled"
    if bench.wanted(what, 130):
        with bench.row(what) as row:
            mounted.measure(row, compiled=True)


def modulation_elsewhere(bench: Bench) -> None:
    """This pack's mount with its modulation layers left on the CPU: the least memory that it needs."""
    what = "this pack, FP8, modulation on the CPU"
    if importlib.util.find_spec("diffusers") is not None and bench.wanted(what, 40):
        with bench.row(what) as row:
            with torch.inference_mode(False), torch.no_grad():
                mounted = Mounted(bench, "cpu")
            bench.forget_weights()
            mounted.measure(row)


def in_comfyui(bench: Bench) -> None:
    """ComfyUI's own loader and ours inside it, by local_comfyui.py in ComfyUI's Python, its table's rows in ours."""
    options = bench.options
    if options.comfyui is None:
        bench.rows.append(Row("ComfyUI's own loader", note="no tree of ComfyUI was given (--comfyui)"))
        return
    bench.forget_weights()
    own = [sys.executable if options.comfyui_python is None else options.comfyui_python]
    size = ["--blocks", "1,1", "--width", "256", "--tokens", "8"] if options.tiny else []
    if options.folder is not None:
        tempfile.tempdir = str(options.folder)
    runs = [("comfyui,ours,stored", []), ("comfyui,fast,ours", ["--plain"])]
    for loaders, more in runs:
        kind = "a file with scales" if not more else "a file that was only cast to FP8"
        if not bench.wanted(f"ComfyUI, {kind}", 150):
            continue
        command = [*own, str(HERE / "local_comfyui.py"), str(options.comfyui), "--loaders", loaders, *more, *size]
        command += ["--side", str(options.side), "--steps", "4", "--rounds", "2"]
        command += ["--", "--cpu"] if bench.device.type == "cpu" else []
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=max(30, bench.ends - time.perf_counter())
        )
        say(done.stdout[-6000:])
        found = list(comfyui_rows(done.stdout, kind, bench.edit))
        bench.rows += found or [Row(f"ComfyUI, {kind}", note=f"failed: {(done.stderr.splitlines() or [''])[-1][:120]}")]


def comfyui_rows(printed: str, kind: str, edit: Edit) -> Iterator[Row]:
    """The rows of local_comfyui.py's table."""
    table = False
    for line in printed.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if table and len(cells) == 6 and not set(cells[0]) <= {"-"}:
            step = float(cells[1])
            yield Row(
                f"inside ComfyUI: {cells[0]}, {kind}",
                step=step,
                rate=edit.flops / step / 1e12,
                apart=float(cells[4]),
                note=f"{cells[3]}; apart from that table's own",
            )
        table = table or cells[0] == "loader"


PARTS = (card_rates, ours, beside_diffusers, modulation_elsewhere, in_comfyui)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=28)
    parser.add_argument("--seconds", type=float, default=450)
    parser.add_argument("--rows", default="", help="those whose names hold one of these texts")
    parser.add_argument("--comfyui", type=Path)
    parser.add_argument("--comfyui-python")
    parser.add_argument("--folder", type=Path, help="where ComfyUI's model file is written")
    parser.add_argument("--device", type=torch.device)
    parser.add_argument("--tiny", action="store_true", help="a tiny model, as a trial of the script itself")
    options = parser.parse_args()
    if options.device is None:
        options.device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    if options.device.type == "cpu" and not options.tiny:
        parser.error("there is no GPU here: give --tiny to try the script")
    if options.tiny:
        options.side, options.steps = 64, 4
    return options


def main() -> None:
    options = arguments()
    began = time.perf_counter()
    name = torch.cuda.get_device_name(options.device) if options.device.type == "cuda" else "CPU"
    bench = Bench(options)
    edit = bench.edit
    text, image = edit.prompt.text.shape[1], edit.tokens.shape[1]
    title = (
        f"{name}, torch {torch.__version__}, CUDA {torch.version.cuda}; {options.side}x{options.side}, one reference, "
        f"{text + 2 * image} tokens, {edit.flops / 1e12:.1f} TFLOP a step, {options.steps} steps"
    )
    say(title)
    for part in PARTS:
        try:
            part(bench)
        except Exception:
            bench.rows.append(Row(part.__name__, note="failed; see the log"))
            say(traceback.format_exc())
    say(f"\n{title}\n")
    for what, rate in bench.rates.items():
        say(f"- {what}: {rate:.1f} TFLOP/s")
    say(f"\n{HEAD_ROW}")
    for row in bench.rows:
        say(row.told(bench.best))
    say(f"\n({time.perf_counter() - began:.0f} s in all)")


if __name__ == "__main__":
    main()
