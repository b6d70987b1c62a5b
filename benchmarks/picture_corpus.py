"""How the pack reads a folder of picture files, next to Pillow: equal, different, or refused and why.

Every file that Pillow opens as PNG, JPEG, GIF or WebP is decoded by both. Equal means the same size and the same
red, green, blue and alpha of every pixel as Pillow's first frame, turned upright by its `exif_transpose`. Of 16 bits
a channel both keep the high byte. A file that Pillow opens but cannot load is counted apart: there the pack has to
refuse, too, unless only what is behind the first picture is broken (an animation's later frames). Exit status 1
where any picture differs, or fails with another error than the pack's own.

    python benchmarks/picture_corpus.py FOLDER
"""

from __future__ import annotations

import argparse
import io
import sys
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
from kontext_bridge.imaging.codec import decode
from kontext_bridge.imaging.errors import ImageError
from kontext_bridge.imaging.pixels import UInt8
from PIL import Image, ImageOps

# A JPEG with further pictures behind the first, which Pillow calls MPO, opens as JPEG.
FORMATS = ("PNG", "JPEG", "GIF", "WEBP")


def by_pillow(data: bytes) -> UInt8 | str | None:
    """RGBA pixels [H,W,4]; the error's text where the file opens but does not load; None where it does not open."""
    try:
        picture = Image.open(io.BytesIO(data), formats=FORMATS)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
    try:
        picture.load()
        upright = ImageOps.exif_transpose(picture)
        if upright.mode.startswith("I;16"):
            deep = np.asarray(upright)
            key = upright.info.get("transparency")
            alpha = np.full(deep.shape, 255) if key is None else np.where(deep == key, 0, 255)
            return np.stack([*[deep >> 8] * 3, alpha], -1).astype(np.uint8)
        return np.asarray(upright.convert("RGBA"))
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def by_us(data: bytes) -> UInt8 | ImageError:
    """RGBA pixels [H,W,4], or the refusal."""
    try:
        picture = decode(data)
    except ImageError as error:
        return error
    alpha = np.full(picture.rgb.shape[:2], 255, np.uint8) if picture.alpha is None else picture.alpha
    return np.dstack([picture.rgb, alpha])


def compare(data: bytes) -> tuple[str, str]:
    """The kind of outcome, and what there is to say of it; the kind is empty where Pillow opens no such picture."""
    expected = by_pillow(data)
    if expected is None:
        return "", ""
    try:
        ours = by_us(data)
    except Exception as error:
        return "RAW ERROR", f"{type(error).__name__}: {error}"
    if isinstance(ours, ImageError):
        both = isinstance(expected, str)
        return ("refused by both" if both else "refused by the pack"), f"{ours}" + (f" [{expected}]" if both else "")
    if isinstance(expected, str):
        return "read by the pack alone", expected
    if ours.shape != expected.shape:
        return "DIFFERENT", f"size {ours.shape[1]}x{ours.shape[0]}, Pillow {expected.shape[1]}x{expected.shape[0]}"
    if not np.array_equal(ours, expected):
        apart = np.abs(ours.astype(int) - expected)
        return (
            "DIFFERENT",
            f"{int((apart.max(-1) > 0).sum())} pixels, by at most {apart.max(axis=(0, 1)).tolist()} RGBA",
        )
    return "equal", ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    warnings.simplefilter("ignore")
    counts: Counter[str] = Counter()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        kind, said = compare(path.read_bytes())
        counts[kind] += bool(kind)
        if said:
            print(f"{kind}: {path.relative_to(folder)}: {said}")
    opened = sum(counts.values())
    print(f"{opened} pictures: " + ", ".join(f"{counts[kind]} {kind}" for kind in sorted(counts) if kind))
    return 1 if any(kind.isupper() and count for kind, count in counts.items()) else 0


if __name__ == "__main__":
    sys.exit(main())
