"""How fast an edit is on this GPU and why, beside others, in one command that ends in a table for RESULTS.md.

python benchmarks/gpu.py [--side 1024] [--steps 28] [--seconds 560] [--parts ours,diffusers,...] [--rows TEXT,...]
                         [--comfyui TREE [--comfyui-python PYTHON] [--folder DIR]] [--into DIR] [--device cuda] [--tiny]

No downloads: FLUX.1 Kontext's full size with random weights, made on the device (12 GB). Every row samples the same
noise, prompt and reference. Of each: ms a step (the median), seconds of a whole edit's transformer (all steps, with
what is done before the first; text encoders and VAE left out), the most memory that torch had, TFLOP/s by the
arithmetic of the exact edit and what part that is of the fastest matrix product measured on this card, which part of
the kernels' time are linear layers, attention, quantising and the rest, and how far the latent is from that of FP8
weights multiplied in 16 bits, which is the first row, and inside ComfyUI the first of its file. Random weights stray
in their own way: deviations tell rows apart, and are no measure of pictures. diffusers rounds time and guidance to 16
bits, which such weights make much of. A cache ends other calls than it would with Kontext, so its rows tell what a
call costs beside the work that it left out.

The parts, in this order, which is that of how much is wanted of them:

ours          the card's own rates; this pack off ComfyUI, stored only and FP8, and with each option of Kontext Fast
diffusers     diffusers in 16 bits, and its FP8 that is only stored
comfyui       with --comfyui, by local_comfyui.py in ComfyUI's Python: ComfyUI's own loader and this pack's, a file with
              scales, what the card itself says of memory, and in the log a profile of each; this pack's once more with
              attention in ComfyUI's order of kernels
compiled      this pack compiled, and diffusers
modulation    this pack with its modulation left on the CPU: the least memory that it needs
plain         as comfyui, of a file that was only cast to FP8: also ComfyUI with --fast fp8_matrix_mult

Each is a program of its own, so that what fails, hangs or is killed costs its own row alone: that says so, and the part
goes on behind it. Rows that no time is left for are not begun. Stopped by Ctrl-C or `timeout`, it ends in the table of
what was found. With --into the next command with the same folder goes on from there, with the same first row.

In the repository's root on a GPU machine, with nothing installed there but torch, diffusers, safetensors, numpy, pillow
and requests, at most 10 minutes (the same command once more does what was not begun):

    mkdir -p /tmp/k && ln -sfn "$PWD" /tmp/k/kontext_bridge && PYTHONUNBUFFERED=1 PYTHONPATH=/tmp/k:$PYTHONPATH \\
        timeout -k 20 580 python3 benchmarks/gpu.py --seconds 540 --into /tmp/k/found 2>&1 | tee "${OUT:-/tmp}/gpu.txt"

Without diffusers, on whose modules the pack's own mount stands too, only the card's rates and ComfyUI's rows are told.
--tiny tries the script itself on any machine.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from gpu_bench import (
    BEGUN,
    GUIDANCE,
    HEAD_ROW,
    NOT_BEGUN,
    TEXT,
    TINY,
    Bench,
    Notes,
    Row,
    fastest,
    say,
    step_flops,
    wait,
)
from kontext_bridge.kontext.checkpoint.layers import HEAD, KONTEXT
from kontext_bridge.kontext.fast.tally import Tally
from kontext_bridge.kontext.fast.wishes import Wishes
from kontext_bridge.kontext.fp8.compute import Compute, Linear
from kontext_bridge.kontext.fp8.devices import ability
from kontext_bridge.kontext.fp8.formats import E4M3
from kontext_bridge.kontext.latents import pack
from kontext_bridge.kontext.standalone.denoiser import Denoiser
from kontext_bridge.kontext.standalone.sampler import sample
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

HERE = Path(__file__).resolve().parent


def card_rates(bench: Bench) -> None:
    """TFLOP/s of matrix products at a large square and at a step's own shape, and of each kernel of attention there."""
    if any(what.startswith("matrix") for what in bench.notes.read()[1]):
        return  # a part that goes on behind a row of it that failed
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
            rate(bench, f"matrix product, {name}, {m}x{k}x{n}", 2.0 * m * k * n, product)
    heads = hidden // HEAD
    q, k, v = torch.randn(3, 1, heads, tokens, HEAD, device=device, dtype=bench.dtype)
    flops = 4.0 * tokens * tokens * hidden
    for kernel in (None, *ATTENTION):
        with nullcontext() if kernel is None else sdpa_kernel(kernel):
            which = "torch's choice" if kernel is None else kernel.name.lower().removesuffix("_attention")
            what = f"attention, {which}, {heads} heads of {tokens} tokens"
            rate(bench, what, flops, lambda: functional.scaled_dot_product_attention(q, k, v))


ATTENTION = (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION)


def rate(bench: Bench, what: str, flops: float, run: Callable[[], object]) -> None:
    """Notes TFLOP/s; what a card cannot do is only said."""
    try:
        with torch.inference_mode():
            taken = repeated(bench.device, run, 1 if bench.options.tiny else 30)
    except RuntimeError as error:
        say(f"{what}: {(str(error).splitlines() or [''])[0][:120]}")
        return
    bench.notes.add("rate", {"what": what, "rate": flops / taken / 1e12})
    say(f"{what}: {flops / taken / 1e12:.1f} TFLOP/s")


def repeated(device: torch.device, run: Callable[[], object], times: int) -> float:
    """Seconds of one run, of many in a row."""
    for _ in range(2):
        run()
    began = wait(device)
    for _ in range(times):
        run()
    return (wait(device) - began) / times


NO_DIFFUSERS = "diffusers is not installed"
FIRST = "this pack, stored only"


def beside_diffusers(bench: Bench) -> None:
    """diffusers' own transformer: 16 bits as it is, and FP8 that is only stored."""
    ways: dict[str, Callable[[Any], object] | None] = {
        "diffusers, 16 bits": None,
        "diffusers, FP8 storage (layerwise casting)": lambda model: model.enable_layerwise_casting(
            storage_dtype=E4M3, compute_dtype=bench.dtype
        ),
    }
    for what, change in ways.items():
        if bench.wanted(what, 45):
            with bench.row(what, own_weights=True) as row:
                one_of_diffusers(bench, row, change)


def one_of_diffusers(bench: Bench, row: Row, change: Callable[[Any], object] | None, *, compiled: bool = False) -> None:
    # Only here, for diffusers may be missing.
    from diffusers_beside import Beside, euler, plain

    model = plain(bench.checkpoint, bench.device, bench.dtype)
    if change is not None:
        change(model)
    bench.loaded()
    velocity = Beside(model, bench.edit, bench.dtype)
    bench.measure(row, velocity, compiled=compiled)
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
    """This pack's mount off ComfyUI: stored, FP8, and its approximations."""
    card_rates(bench)
    if not has_diffusers(bench):
        return

    @cache
    def mounted() -> Mounted:
        with torch.no_grad():
            return Mounted(bench)

    # On a CPU, whose FP8 products are only correct, they must be asked for.
    fp8 = Compute.FP8 if bench.device.type == "cpu" else Compute.AUTO
    for what, compute in ((FIRST, Compute.STORAGE), ("this pack, FP8", fp8)):
        if bench.wanted(what, 30):
            mounted().multiplied(compute)
            with bench.row(what) as row:
                mounted().measure(row)
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
            mounted().multiplied(fp8)
            with bench.row(what) as row:
                tally = Tally()
                mounted().edit(row, fast=wishes, tally=tally)
                row.step = None if row.edit is None else row.edit / bench.edit.steps
                row.note = row.note or "; ".join(tally.lines())


def compiled(bench: Bench) -> None:
    """This pack and diffusers, both compiled block by block."""
    what = "this pack, FP8, compiled"
    if bench.wanted(what, 130):
        with bench.row(what) as row:
            with torch.inference_mode(False), torch.no_grad():
                mounted = Mounted(bench)
            mounted.measure(row, compiled=True)
            del mounted
    what = "diffusers, 16 bits, compiled"
    if bench.wanted(what, 130):
        with bench.row(what, own_weights=True) as row:
            one_of_diffusers(bench, row, lambda model: model.compile_repeated_blocks(fullgraph=True), compiled=True)


def modulation(bench: Bench) -> None:
    """This pack's mount with its modulation layers left on the CPU: the least memory that it needs."""
    what = "this pack, FP8, modulation on the CPU"
    if bench.wanted(what, 40):
        with bench.row(what) as row:
            with torch.inference_mode(False), torch.no_grad():
                mounted = Mounted(bench, "cpu")
            bench.forget_weights()
            mounted.measure(row)


def has_diffusers(bench: Bench) -> bool:
    """Whether it is installed; a part that needs it says so where it is not."""
    if importlib.util.find_spec("diffusers") is not None:
        return True
    bench.note(Row(f"part {bench.options.part}", note=NO_DIFFUSERS))
    return False


def inside(options: argparse.Namespace, notes: Notes, name: str, ends: float) -> list[str]:
    """The command that measures a part inside ComfyUI; [] where there is no ComfyUI or no time."""
    kind = IN_COMFYUI[name]
    if any(kind.file in what and row.step is not None for what, row in notes.read()[0].items()):
        return []
    if options.comfyui is None:
        notes.add(
            "row",
            {"what": f"in ComfyUI, {kind.file}", "note": f"{NOT_BEGUN}: no tree of ComfyUI was given (--comfyui)"},
        )
        return []
    if ends - time.perf_counter() < (1 if options.tiny else 60):
        notes.add("row", {"what": f"in ComfyUI, {kind.file}", "note": f"{NOT_BEGUN}: no time was left"})
        return []
    command = [options.comfyui_python or sys.executable, str(HERE / "local_comfyui.py"), str(options.comfyui)]
    command += ["--loaders", kind.loaders, *kind.more, "--profile", "--rounds", "1", "--first", "2"]
    command += ["--side", str(options.side), "--steps", str(options.steps), "--of", f", {kind.file}"]
    command += ["--notes", str(notes.path), "--folder", str(options.folder or tempfile.gettempdir())]
    command += ["--blocks", "1,1", "--width", "256", "--tokens", "8"] if options.tiny else []
    return [*command, "--", "--cpu"] if options.device.type == "cpu" else command


@dataclass(frozen=True)
class Kind:
    """A part inside ComfyUI: the file, whose loaders, the first of them the truth, and options of local_comfyui.py."""

    file: str
    loaders: str
    more: tuple[str, ...] = ()


IN_COMFYUI = {
    "comfyui": Kind("a file with scales", "stored,comfyui,ours,order"),
    "plain": Kind("a file that was only cast to FP8", "comfyui,fast,ours", ("--plain",)),
}
BESIDE: dict[str, Callable[[Bench], None]] = {
    "ours": ours,
    "diffusers": beside_diffusers,
    "compiled": compiled,
    "modulation": modulation,
}
PARTS = ("ours", "diffusers", "comfyui", "compiled", "modulation", "plain")


def program(options: argparse.Namespace, name: str, folder: Path, ends: float) -> list[str]:
    """The command that measures one part; [] where there is none."""
    notes = Notes(folder / "rows.jsonl")
    if name in IN_COMFYUI:
        return inside(options, notes, name, ends)
    command = [sys.executable, str(Path(__file__).resolve()), "--part", name, "--into", str(folder)]
    command += ["--seconds", str(ends - time.perf_counter()), "--rows", options.rows, "--device", str(options.device)]
    command += ["--side", str(options.side), "--steps", str(options.steps)]
    return [*command, "--tiny"] if options.tiny else command


def run_part(options: argparse.Namespace, name: str, folder: Path, ends: float) -> None:
    """One part, from its beginning to its end; behind a row that ended its program, it goes on with the next."""
    notes = Notes(folder / "rows.jsonl")
    if time.perf_counter() > ends:
        notes.add("row", {"what": f"part {name}", "note": f"{NOT_BEGUN}: no time was left"})
        return
    while command := program(options, name, folder, ends):
        before = set(notes.read()[0])
        with subprocess.Popen(command, start_new_session=True) as running:
            try:
                # What was begun in time may end a little late: a row that is lost cost as much.
                code = running.wait(max(30.0, ends + 15 - time.perf_counter()))
                why = f"its program ended with {code}"
            except subprocess.TimeoutExpired:
                code, why = None, "not done when the time was over"
            finally:
                if running.poll() is None:
                    with suppress(ProcessLookupError):
                        os.killpg(running.pid, signal.SIGKILL)
        if not code and code is not None:
            return
        say(f"part {name}: {why}")
        rows = notes.read()[0]
        broken = [row for row in rows.values() if row.note == BEGUN]
        for row in broken:
            notes.add("row", {**asdict(row), "note": f"failed: {why}"})
        if rows.keys() <= before or name in IN_COMFYUI or code is None:
            if not broken:
                notes.add("row", {"what": f"part {name}", "note": f"failed: {why}; see the log"})
            return


def table(title: str, rows: Iterable[Row], rates: dict[str, float]) -> str:
    """What is to stand in RESULTS.md."""
    best = fastest(rates)
    told = [f"- {what}: {rate:.1f} TFLOP/s" for what, rate in rates.items()]
    return "\n".join([title, "", *told, "", HEAD_ROW, *(row.told(best) for row in rows)])


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=28)
    parser.add_argument("--seconds", type=float, default=560)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--rows", default="", help="those whose names hold one of these texts; all inside ComfyUI")
    parser.add_argument("--comfyui", type=Path)
    parser.add_argument("--comfyui-python")
    parser.add_argument("--folder", type=Path, help="where ComfyUI's model file is written")
    parser.add_argument("--device", type=torch.device)
    parser.add_argument("--tiny", action="store_true", help="a tiny model, as a trial of the script itself")
    parser.add_argument("--part", choices=BESIDE, help=argparse.SUPPRESS)
    parser.add_argument("--into", type=Path, help="where what is found is kept, for a later command to go on from")
    options = parser.parse_args()
    if options.device is None:
        options.device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    if options.device.type == "cpu" and not options.tiny:
        parser.error("there is no GPU here: give --tiny to try the script")
    options.parts = options.parts.split(",")
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no such parts: {', '.join(sorted(unknown))}")
    if options.tiny:
        options.side, options.steps = 64, 4
    return options


def main() -> int:
    """1 where a row failed."""
    options = arguments()
    if options.part is not None:
        bench = Bench(options, options.into)
        if options.part == "ours" or has_diffusers(bench):
            BESIDE[options.part](bench)
        return 0
    began = time.perf_counter()
    # As Ctrl-C does: what was found until then is told.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as other:
        folder = options.into or Path(other)
        folder.mkdir(parents=True, exist_ok=True)
        notes, title = Notes(folder / "rows.jsonl"), title_of(options)
        notes.forget_what_was_not_begun()
        say(title)
        try:
            for name in PARTS:
                if name in options.parts:
                    run_part(options, name, folder, began + options.seconds)
        except KeyboardInterrupt:
            say("ended early")
        except Exception:
            say(traceback.format_exc())
        rows, rates = notes.read()
    say("\n" + table(title, rows.values(), rates))
    say(f"\n({time.perf_counter() - began:.0f} s in all)")
    return any(row.note.startswith(("failed", BEGUN)) for row in rows.values())


def title_of(options: argparse.Namespace) -> str:
    """The machine, and what is edited."""
    name = "CPU"
    if options.device.type == "cuda":
        # By another program: this one would keep memory of the card for itself, beside what is measured.
        asks = f"import torch; print(torch.cuda.get_device_name({str(options.device)!r}))"
        name = subprocess.run([sys.executable, "-c", asks], capture_output=True, text=True).stdout.strip()
    size, text = (TINY, 8) if options.tiny else (KONTEXT, TEXT)
    image = 2 * (options.side // 16) ** 2
    return (
        f"{name}, torch {torch.__version__}, CUDA {torch.version.cuda}; {options.side}x{options.side}, one reference, "
        f"{text + image} tokens, {step_flops(size, text, image) / 1e12:.3g} TFLOP a step, {options.steps} steps"
    )


if __name__ == "__main__":
    sys.exit(main())
