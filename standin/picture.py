"""The stand-in's edit: the input picture at the right size, plainly marked as not made by Kontext.

It is tinted, or painted by whoever is given for it; frame and text are the same.
"""

from __future__ import annotations

import colorsys
import io
import struct
import textwrap
import zlib
from collections.abc import Callable, Sequence

from PIL import Image, ImageDraw, ImageFont, ImageOps

from .masks import marked, upright
from .parameters import AskedEdit
from .sizes import Size

# The sizes FLUX.1 Kontext was trained on, as the open diffusers pipeline lists them (portrait half).
_PORTRAIT = (
    *((672, 1568), (688, 1504), (720, 1456), (752, 1392), (800, 1328)),
    *((832, 1248), (880, 1184), (944, 1104), (1024, 1024)),
)
SIZES = tuple(dict.fromkeys(size for w, h in _PORTRAIT for size in ((w, h), (h, w))))
# Sides below which a text has no room; the frame alone marks the picture then.
_LEGIBLE = 120
MAX_INPUT_PIXELS = 64_000_000
# zlib's strategy for runs: quicker than level 1's own and no larger on photographs.
_Z_RLE = 3


class BadPicture(Exception):
    """The input bytes are no picture that can be edited; the text says why."""


# An RGB picture as it is asked to be, at its own size; raises BadPicture.
Paint = Callable[[Image.Image, AskedEdit], Image.Image]


def output_size(aspect_ratio: str, input_size: tuple[int, int]) -> tuple[int, int]:
    """Width and height, about one megapixel, nearest to the aspect ratio asked for.

    `match_input_image` takes the input's own. Ties cannot occur: the list's ratios are all different.
    """
    if aspect_ratio == "match_input_image":
        wanted = input_size[0] / input_size[1]
    else:
        across, down = aspect_ratio.split(":")
        wanted = int(across) / int(down)
    return min(SIZES, key=lambda size: abs(wanted - size[0] / size[1]))


def make_edit(
    source: bytes,
    edit: AskedEdit,
    shrink: int = 1,
    paint: Paint | None = None,
    others: Sequence[bytes] = (),
    mask: bytes | None = None,
) -> bytes:
    """The edited picture's file bytes in the format asked for, its sides divided by `shrink`.

    paint: makes the edit; without it the picture is tinted. others: further pictures, shown small at the top. mask:
    where it does not say that something is to be changed, the picture stays as it was, frame and text included.
    Raises BadPicture and BadMask.
    """
    picture, further = _open(source), list(map(_open, others))
    width, height = _size(edit, [upright(one) for one in (source, *others)])
    size = max(1, width // shrink), max(1, height // shrink)
    colour = seed_colour(edit.seed)
    follows = edit.aspect_ratio == "match_input_image" if edit.wanted is None else edit.wanted.follows
    before = canvas = _place(picture, size, colour, fill=follows)
    canvas = paint(canvas, edit) if paint else Image.blend(canvas, Image.new("RGB", size, colour), 0.18)
    _frame(canvas, colour)
    _show(canvas, further)
    _label(canvas, edit, "stand-in with the demo model, not Kontext" if paint else "stand-in, not Kontext")
    if mask is not None:
        # placed as the picture is: where the shape is another, what is beside it is no part of the mask
        where = marked(mask, edit.marks, source).convert("RGB")
        changed = _place(where, size, (0, 0, 0), fill=follows, resampling=Image.Resampling.NEAREST)
        canvas = Image.composite(canvas, before, changed.convert("L"))
    return _encode(canvas, edit)


def _size(edit: AskedEdit, pictures: Sequence[Size]) -> Size:
    return output_size(edit.aspect_ratio, pictures[0]) if edit.wanted is None else edit.wanted.size(pictures)


def seed_colour(seed: int) -> tuple[int, int, int]:
    """A colour of full strength whose hue jumps by the golden ratio from seed to seed."""
    r, g, b = colorsys.hsv_to_rgb(seed * 0.6180339887498949 % 1.0, 0.75, 0.95)
    return round(r * 255), round(g * 255), round(b * 255)


def _open(source: bytes) -> Image.Image:
    try:
        picture = Image.open(io.BytesIO(source), formats=("PNG", "JPEG", "WEBP", "GIF"))
        if picture.width * picture.height > MAX_INPUT_PIXELS:
            raise BadPicture(f"input_image is too large: {picture.width} x {picture.height} pixels")
        picture.draft("RGB", (1024, 1024))
        return ImageOps.exif_transpose(picture).convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning) as e:
        raise BadPicture(f"cannot identify image file: input_image is no jpeg, png, gif or webp ({e})") from e


def _place(
    picture: Image.Image,
    size: Size,
    colour: tuple[int, int, int],
    fill: bool,
    resampling: Image.Resampling = Image.Resampling.BICUBIC,
) -> Image.Image:
    if fill:
        return picture.resize(size, resampling)
    fitted = ImageOps.contain(picture, size, resampling)
    dark = (colour[0] // 3, colour[1] // 3, colour[2] // 3)
    canvas = Image.new("RGB", size, dark)
    canvas.paste(fitted, ((size[0] - fitted.width) // 2, (size[1] - fitted.height) // 2))
    return canvas


def _frame(canvas: Image.Image, colour: tuple[int, int, int]) -> None:
    width, height = canvas.size
    thick, step = min(22, width // 4, height // 4), 44
    stripes = Image.new("RGB", canvas.size, (24, 24, 24))
    pen = ImageDraw.Draw(stripes)
    for x in range(-height, width, step):
        pen.polygon([(x, height), (x + height, 0), (x + height + step // 2, 0), (x + step // 2, height)], colour)
    mask = Image.new("1", canvas.size, 1)
    ImageDraw.Draw(mask).rectangle((thick, thick, width - thick - 1, height - thick - 1), fill=0)
    canvas.paste(stripes, mask=mask)


def _show(canvas: Image.Image, pictures: Sequence[Image.Image]) -> None:
    """Put pictures small into the upper left corner, side by side."""
    room = max(1, canvas.width // 8), max(1, canvas.height // 8)
    for place, picture in enumerate(pictures):
        canvas.paste(ImageOps.contain(picture, room, Image.Resampling.BILINEAR), (22 + place * room[0], 22))


def _label(canvas: Image.Image, edit: AskedEdit, title: str) -> None:
    width, height = canvas.size
    margin, pad = 22, 14
    if width < _LEGIBLE or height < _LEGIBLE:
        return
    large, small = _font(28), _font(19)
    room = width - 2 * (margin + pad)
    prompt = " ".join(edit.prompt.split())
    lines = textwrap.wrap(f"“{prompt}”", width=max(10, room // 11), max_lines=3, placeholder=" …")
    lines.append(f"seed {edit.seed} · steps {edit.steps} · guidance {edit.guidance:g} · {edit.aspect_ratio}")
    band = pad * 2 + 36 + 25 * len(lines)
    top = height - margin - band
    box = (margin, top, width - margin, height - margin)
    canvas.paste(Image.blend(canvas.crop(box), Image.new("RGB", (box[2] - box[0], band), (16, 16, 16)), 0.8), box)
    pen = ImageDraw.Draw(canvas)
    pen.text((margin + pad, top + pad), title, font=large, fill=(255, 255, 255))
    for n, line in enumerate(lines):
        pen.text((margin + pad, top + pad + 38 + 25 * n), line, font=small, fill=(225, 225, 225))


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    try:
        # Pillow's own font has few letters beyond ASCII; this one is on most Linux machines.
        return ImageFont.truetype("DejaVuSans.ttf", size)
    except OSError:
        return ImageFont.load_default(size)


def _encode(canvas: Image.Image, edit: AskedEdit) -> bytes:
    out = io.BytesIO()
    if edit.output_format == "png":
        canvas.save(out, "PNG", compress_level=1, compress_type=_Z_RLE)
    elif edit.output_format in ("jpg", "jpeg"):
        canvas.save(out, "JPEG", quality=max(1, edit.output_quality))
    else:
        canvas.save(out, "WEBP", quality=edit.output_quality, method=0)
    return out.getvalue()


def bomb(width: int = 60_000, height: int = 60_000) -> bytes:
    """A PNG of a few kilobytes whose header says that size, one bit a pixel.

    Its data ends after the first 4 MB of rows: a reader sets memory aside for all of them before it
    can notice.
    """
    row = b"\0" + b"\xff" * ((width + 7) // 8)
    packed = zlib.compress(row * min(height, 4_000_000 // len(row)), 9)
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", packed), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def media_type(data: bytes) -> str:
    """The Content-Type that a file's first bytes call for."""
    if data.startswith(b"\x89PNG"):
        return "image/png"
    if data.startswith(b"\xff\xd8"):
        return "image/jpeg"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return "image/gif" if data.startswith(b"GIF8") else "application/octet-stream"
