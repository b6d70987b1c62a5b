"""How long an IMAGE takes to become a lossless file, next to what other packs do with Pillow.

Whole path, fp32 tensor to bytes. The candidates take turns within one run, so that a busy machine slows all of
them; the figures are medians of CPU time, the ratio is against Pillow's default PNG in the same run. Each candidate's
first result is decoded and must equal the 8-bit grid. Exit status 1 where the pack's default is not 16 times as fast on
the photo-like picture and twice as fast on both drawings, or slower than zlib's run lengths on the example picture.

    python benchmarks/encoding.py [--size 1024] [--rounds 15] [--batch 8]
"""

from __future__ import annotations

import argparse
import io
import statistics
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from kontext_bridge.imaging import deflate, png
from kontext_bridge.imaging.codec import DEFAULT_FORMAT, ImageFormat, decode, encode, encode_batch
from kontext_bridge.imaging.pixels import UInt8, to_uint8
from PIL import Image, ImageDraw

PHOTO_GOAL, DRAWING_GOAL = 16.0, 2.0
RUN_LENGTHS = "up filter, zlib run length"
EXAMPLE = Path(__file__).parents[1] / "example_workflows" / "kontext_example.png"
BASELINE = "Pillow PNG, default"
OURS = f"default ({DEFAULT_FORMAT.value})"

Encoder = Callable[[torch.Tensor], bytes]


def photo_like(size: int, rng: np.random.Generator) -> UInt8:
    """Smooth light and shade with a camera's grain: hardly compressible, as photographs are."""
    y, x = np.mgrid[0:size, 0:size] / size
    shades = [np.sin(6 * x + 3 * y) * 0.3 + 0.5, np.cos(5 * x * y) * 0.3 + 0.5, (x + y) * 0.4]
    picture = np.stack(shades, -1) * 255 + rng.normal(0, 3, (size, size, 3))
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def flat_graphic(size: int, rng: np.random.Generator) -> UInt8:
    """Rectangles of one colour each: what every encoder finds easy."""
    picture = np.full((size, size, 3), 240, np.uint8)
    for _ in range(60):
        top, left = rng.integers(0, size, 2)
        height, width = rng.integers(size // 50, size // 3, 2)
        picture[top : top + height, left : left + width] = rng.integers(0, 256, 3)
    return picture


def line_drawing(size: int, rng: np.random.Generator) -> UInt8:
    """Smooth lines and shapes on paper, drawn four times as large and made smaller: what drawing programs give."""
    large = Image.new("RGB", (size * 4, size * 4), (252, 250, 245))
    draw = ImageDraw.Draw(large)
    for number in range(60):
        colour = tuple(int(value) for value in rng.integers(0, 200, 3))
        box = sorted(int(value) for value in rng.integers(0, size * 4, 2))
        across = sorted(int(value) for value in rng.integers(0, size * 4, 2))
        if number % 3:
            draw.line((across[0], box[0], across[1], box[1]), colour, width=size // 64)
        else:
            draw.ellipse((across[0], box[0], across[1] + 1, box[1] + 1), outline=colour, width=size // 64)
    return np.asarray(large.resize((size, size), Image.Resampling.BOX))


def pillow(**options: object) -> Encoder:
    """The usual way of other packs, with rounding and clamping as ours."""

    def encoder(image: torch.Tensor) -> bytes:
        out = io.BytesIO()
        Image.fromarray(to_uint8(image)).save(out, **options)
        return out.getvalue()

    return encoder


def up_filter_zlib(image: torch.Tensor) -> bytes:
    """The least that a fast PNG takes: the `up` filter alone, and zlib's fastest useful strategy."""
    deflater = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, 9, zlib.Z_RLE)
    with (
        mock.patch.object(deflate, "compress", lambda raw: deflater.compress(raw.data) + deflater.flush()),
        mock.patch.object(png, "_sideways", lambda *_: ()),
    ):
        return encode(to_uint8(image), ImageFormat.PNG).data


CANDIDATES: dict[str, Encoder] = {
    BASELINE: pillow(format="PNG"),
    "Pillow PNG, level 1": pillow(format="PNG", compress_level=1),
    "Pillow PNG, run length": pillow(format="PNG", compress_level=1, compress_type=3),
    "webp lossless": lambda image: encode(to_uint8(image), ImageFormat.WEBP_LOSSLESS).data,
    RUN_LENGTHS: up_filter_zlib,
    OURS: lambda image: encode_batch(image.unsqueeze(0))[0].data,
}


def in_turns(
    jobs: dict[str, Callable[[], object]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Median seconds of each job, all run once a round."""
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, job in jobs.items():
            start = clock()
            job()
            seconds[name].append(clock() - start)
    return {name: statistics.median(taken) for name, taken in seconds.items()}


def compare(title: str, pixels: UInt8, rounds: int) -> dict[str, float]:
    """Print one table; give the medians."""
    image = torch.from_numpy(pixels.astype(np.float32) / 255)
    sizes = {name: len(encoder(image)) for name, encoder in CANDIDATES.items()}
    for name, encoder in CANDIDATES.items():
        if not np.array_equal(decode(encoder(image)).rgb, pixels):
            sys.exit(f"{name}: did not come back bit for bit")
    medians = in_turns(
        {name: (lambda e=encoder: e(image)) for name, encoder in CANDIDATES.items()}, rounds, time.thread_time
    )
    print(f"\n{title}, {pixels.shape[1]}x{pixels.shape[0]}, median of {rounds}")
    for name, seconds in medians.items():
        ratio = medians[BASELINE] / seconds
        print(f"  {name:28} {seconds * 1000:8.1f} ms {ratio:6.1f}x {sizes[name] / 1e6:8.3f} MB")
    return medians


def compare_batch(pixels: UInt8, count: int, rounds: int) -> None:
    """Print a whole batch: one after the other as other packs do, and the pack's way."""
    batch = torch.from_numpy(pixels.astype(np.float32) / 255).repeat(count, 1, 1, 1)
    serial = CANDIDATES[BASELINE]
    jobs: dict[str, Callable[[], object]] = {
        f"{BASELINE}, serial": lambda: [serial(image) for image in batch],
        "webp lossless, side by side": lambda: encode_batch(batch, format=ImageFormat.WEBP_LOSSLESS),
        f"{OURS}, side by side": lambda: encode_batch(batch),
    }
    medians = in_turns(jobs, rounds)
    slowest = max(medians.values())
    print(f"\nbatch of {count}, median of {rounds}")
    for name, seconds in medians.items():
        print(f"  {name:34} {seconds * 1000:8.1f} ms {slowest / seconds:6.1f}x")


def main() -> int:
    """Run all comparisons; 1 where the default misses the goal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch", type=int, default=8)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    photo = photo_like(options.size, rng)
    photo_medians = compare("photo-like", photo, options.rounds)
    flat = compare("flat graphic", flat_graphic(options.size, rng), options.rounds)
    lines = compare("line drawing", line_drawing(options.size, rng), options.rounds)
    example = compare("example picture", np.asarray(Image.open(EXAMPLE).convert("RGB")), options.rounds)
    compare_batch(photo, options.batch, max(1, options.rounds // 5))
    bounds = [
        ("photo-like, against Pillow's default", photo_medians[BASELINE] / photo_medians[OURS], PHOTO_GOAL),
        ("flat graphic, against Pillow's default", flat[BASELINE] / flat[OURS], DRAWING_GOAL),
        ("line drawing, against Pillow's default", lines[BASELINE] / lines[OURS], DRAWING_GOAL),
        ("example picture, against zlib's run lengths", example[RUN_LENGTHS] / example[OURS], 1.0),
    ]
    print()
    for what, ratio, least in bounds:
        print(f"{'met' if ratio >= least else 'MISSED'}: {ratio:.2f} times as fast of at least {least:g}, {what}")
    return 0 if all(ratio >= least for _, ratio, least in bounds) else 1


if __name__ == "__main__":
    sys.exit(main())
