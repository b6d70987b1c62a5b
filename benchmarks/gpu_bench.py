"""What measures a full-size model on a device: random weights made there, one edit, and rows that may fail alone.

Rows are noted in a file as they begin and as they end, so that what is found outlives the program that finds it.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from kontext_bridge.kontext.checkpoint.layers import HEAD, KONTEXT, Naming, Role, Size, layers, norms
from kontext_bridge.kontext.checkpoint.purpose import Purpose
from kontext_bridge.kontext.checkpoint.reading import Checkpoint, Weights
from kontext_bridge.kontext.edit import LatentEdit
from kontext_bridge.kontext.fast.tally import apart
from kontext_bridge.kontext.fp8.formats import E4M3
from kontext_bridge.kontext.latents import noise, pack, unpack
from kontext_bridge.kontext.schedule import schedule
from kontext_bridge.kontext.standalone.denoiser import Conditioning
from profiles import KINDS, quantising_annotated, shares

TINY = Size(hidden=256, doubles=1, singles=2, context=64, pooled=32)
TEXT = 512
GUIDANCE = 2.5
# Scales as they are in a file, for weights whose numbers are about one over the root of their inputs.
_SPREAD = 80.0
HEAD_ROW = (
    "| what | ms a step | s an edit | GB at most | TFLOP/s | of the card's | linear | attention | quantising | rest "
    "| latent apart | note |\n|" + "---|" * 12
)


def say(*words: object) -> None:
    print(*words, flush=True)


def wait(device: torch.device) -> float:
    """The time once the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


@torch.inference_mode(False)
@torch.no_grad()
def random_checkpoint(size: Size, device: torch.device) -> Checkpoint:
    """A model of this size as if read from a scaled FP8 file, its tensors made on the device."""
    generator = torch.Generator(device).manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, device=device, dtype=torch.float32)

    linears = {}
    for layer in layers(size):
        weight, scale = normal(layer.rows, layer.inputs), None
        if layer.role is Role.OUTER:
            weight = (weight / layer.inputs**0.5).to(torch.bfloat16)
        else:
            weight = (weight * _SPREAD).clamp_(-448, 448).to(E4M3)
            scale = torch.tensor(1 / _SPREAD / layer.inputs**0.5, device=device)
        bias = (normal(layer.rows) * 0.02).to(torch.bfloat16)
        linears[layer.bfl] = Weights(weight, scale, bias, layer.role, False)
    return Checkpoint(
        path=Path("random.safetensors"),
        naming=Naming.BFL,
        size=size,
        labelled=True,
        linears=linears,
        norms={norm.bfl: torch.ones(HEAD, dtype=torch.bfloat16, device=device) for norm in norms(size)},
        layout="float8_e4m3fn with a scale per layer",
        purpose=Purpose(),
        files=(),
        _prefix="",
    )


class Edit:
    """One edit's inputs, the same for every row."""

    def __init__(self, size: Size, side: int, steps: int, text: int, device: torch.device) -> None:
        generator = torch.Generator().manual_seed(1)
        self.size, self.side, self.steps, self.latent, self.device = size, side, steps, side // 8, device
        self.prompt = Conditioning(
            torch.randn(1, text, size.context, generator=generator), torch.randn(1, size.pooled, generator=generator)
        )
        self.reference = torch.randn(1, 16, self.latent, self.latent, generator=generator)
        self.reference_tokens = pack(self.reference)
        self.sigmas = schedule(steps, self.latent**2 // 4)
        self.tokens = pack(noise(0, 1, self.latent, self.latent)).to(device)
        self.wanted = LatentEdit(side, side, steps, GUIDANCE)

    @property
    def flops(self) -> float:
        """Of one exact step."""
        return step_flops(self.size, self.prompt.text.shape[1], 2 * self.tokens.shape[1])


def step_flops(size: Size, text: int, image: int) -> float:
    """Multiplications and additions of the blocks in one step, with text and image tokens (references among them)."""
    total = 0.0
    for layer in layers(size):
        if layer.role.in_block:
            rows = text + image
            if layer.bfl.startswith("double_blocks"):
                rows = text if "txt_" in layer.bfl else image
            total += 2.0 * rows * layer.rows * layer.inputs
    return total + 4.0 * (text + image) ** 2 * size.hidden * (size.doubles + size.singles)


@dataclass
class Row:
    """What was found of one way; None for what was not, or cannot be."""

    what: str
    step: float | None = None
    edit: float | None = None
    peak: float | None = None
    rate: float | None = None
    shares: dict[str, float] = field(default_factory=dict)
    apart: float | None = None
    note: str = ""

    def told(self, best: float | None) -> str:
        def number(value: float | None, form: str) -> str:
            return "" if value is None else format(value, form)

        of_card = None if self.rate is None or best is None else self.rate / best
        parts = " | ".join(number(self.shares.get(kind), ".0%") for kind in KINDS)
        milliseconds = None if self.step is None else self.step * 1e3
        rate = number(self.rate, ".1g" if self.rate is not None and self.rate < 10 else ".0f")
        return (
            f"| {self.what} | {number(milliseconds, '.1f')} | {number(self.edit, '.2f')} "
            f"| {number(self.peak, '.2f')} | {rate} | {number(of_card, '.0%')} | {parts} "
            f"| {number(self.apart, '.1e')} | {self.note} |"
        )


BEGUN, NOT_BEGUN = "begun, and its end was not told", "not begun"


@dataclass(frozen=True)
class Notes:
    """The rows and the card's rates found so far, in a file of a line of JSON each; the last of a row counts."""

    path: Path

    def add(self, kind: str, told: dict[str, Any]) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps({"kind": kind, **told}) + "\n")

    def forget_what_was_not_begun(self) -> None:
        """So that it is begun now."""
        rows, rates = self.read()
        self.path.unlink(missing_ok=True)
        for what, rate in rates.items():
            self.add("rate", {"what": what, "rate": rate})
        for row in rows.values():
            if not row.note.startswith(NOT_BEGUN):
                self.add("row", asdict(row))

    def read(self) -> tuple[dict[str, Row], dict[str, float]]:
        """Rows by what they are of, and TFLOP/s by what they are of."""
        rows: dict[str, Row] = {}
        rates: dict[str, float] = {}
        for line in self.path.read_text().splitlines() if self.path.exists() else ():
            told = json.loads(line)
            if told.pop("kind") == "rate":
                rates[told["what"]] = told["rate"]
            else:
                rows[told["what"]] = Row(**told)
        return rows, rates


def fastest(rates: dict[str, float]) -> float | None:
    """TFLOP/s of the fastest matrix product; None where none was measured."""
    return max((rate for what, rate in rates.items() if what.startswith("matrix")), default=None)


class Bench:
    """The card, the model, the edit, and the rows so far. folder: where notes and the first row's latent lie."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options, self.device = options, options.device
        self.dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        size, text = (TINY, 8) if options.tiny else (KONTEXT, TEXT)
        self.edit = Edit(size, options.side, options.steps, text, self.device)
        self.notes, self._first = Notes(folder / "rows.jsonl"), folder / "first_row.pt"
        self.ends = time.perf_counter() + options.seconds
        self._checkpoint: Checkpoint | None = None

    @property
    def checkpoint(self) -> Checkpoint:
        if self._checkpoint is None:
            began = wait(self.device)
            self._checkpoint = random_checkpoint(self.edit.size, self.device)
            say(f"random weights made in {wait(self.device) - began:.1f} s")
        return self._checkpoint

    @property
    def held(self) -> float:
        """GB of the checkpoint's tensors."""
        if self._checkpoint is None:
            return 0.0
        return sum(weights.weight.nbytes for weights in self._checkpoint.linears.values()) / 1e9

    def forget_weights(self) -> None:
        self._checkpoint = None
        self.loaded()

    def loaded(self) -> None:
        """What was taken up to here, as to load a model, is not counted with what an edit takes."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)

    @contextmanager
    def row(self, what: str, *, own_weights: bool = False) -> Iterator[Row]:
        """A row; what fails within becomes its note, and the other rows go on.

        own_weights: whether it has weights of its own, beside which the checkpoint's are not counted.
        """
        row = Row(what, note=BEGUN)
        self.note(row)
        row.note = ""
        self.loaded()
        began = wait(self.device)
        try:
            with torch.inference_mode():
                yield row
            if self.device.type == "cuda":
                row.peak = torch.cuda.max_memory_allocated(self.device) / 1e9 - (self.held if own_weights else 0)
        except Exception as error:
            # Time on a GPU is rare: what one row cannot do must not cost the others' figures.
            said = (str(error).splitlines() or [""])[0]
            row.note = f"failed: {type(error).__name__}: {said}"[:160].replace("|", "/")
            say(traceback.format_exc())
        self.note(row)
        # After some errors a CUDA program gets nothing but errors, and another one must go on: this raises then.
        wait(self.device)
        gc.collect()
        say(f"{what}: {time.perf_counter() - began:.0f} s\n{row.told(self.best)}")

    def note(self, row: Row) -> None:
        self.notes.add("row", asdict(row))

    def wanted(self, what: str, needs: float) -> bool:
        """Whether a row is asked for, not begun before, and there is time for it; without time the row says so."""
        if self.options.rows and not any(text in what for text in self.options.rows.split(",")):
            return False
        if what in self.notes.read()[0]:
            return False
        if time.perf_counter() + needs * (0.02 if self.options.tiny else 1) > self.ends:
            self.note(Row(what, note=f"{NOT_BEGUN}: no time was left"))
            return False
        return True

    @property
    def best(self) -> float | None:
        return fastest(self.notes.read()[1])

    def measure(
        self, row: Row, velocity: Callable[[torch.Tensor, int], torch.Tensor], *, compiled: bool = False
    ) -> None:
        """ms a step, TFLOP/s by the exact edit's arithmetic, and whose the time on the device is."""
        edit, taken = self.edit, []
        for step in range(2):
            velocity(edit.tokens, step)
        for number in range(1 if self.options.tiny else 6):
            began = wait(self.device)
            velocity(edit.tokens, number % edit.steps)
            taken.append(wait(self.device) - began)
        row.step = statistics.median(taken)
        row.rate = edit.flops / row.step / 1e12
        # A profiler that fails costs no time that was measured.
        self.note(row)
        row.shares = self.shares(lambda: velocity(edit.tokens, 1), compiled)

    def compare(self, row: Row, tokens: torch.Tensor) -> None:
        latent = unpack(tokens, self.edit.latent, self.edit.latent).float()
        if not self._first.exists():
            torch.save(latent.cpu(), self._first)
        row.apart = apart(latent.cpu(), torch.load(self._first, weights_only=True))
        if not bool(torch.isfinite(latent).all()):
            row.note = "not finite"

    def shares(self, run: Callable[[], object], compiled: bool) -> dict[str, float]:
        """Of a call's time on the device. In compiled blocks quantising is part of other kernels, and of the rest."""
        from torch.profiler import ProfilerActivity, profile

        on_gpu = self.device.type == "cuda"
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
        # A compiled graph would be made anew for another function in its place.
        with nullcontext() if compiled else quantising_annotated(), profile(activities=activities) as seen:
            run()
            wait(self.device)
        return shares(seen.events())
