"""Every note of which way up a picture belongs is heard, as Pillow's exif_transpose and viewers hear it."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from kontext_bridge.imaging.codec import decode
from kontext_bridge.imaging.orientation import orientation
from numpy.typing import NDArray
from PIL import Image, ImageOps

Pixels = NDArray[np.uint8]
XMP = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description {} /></x:xmpmeta>'
HEADER = 33


def exif(value: int, *, order: str = "<", kind: int = 3, prefix: bytes = b"", extra: bool = True) -> bytes:
    """An Exif block whose first directory has the orientation, after another entry."""
    size = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i"}[kind]
    entries = [struct.pack(order + "HHI4s", 0x0100, 4, 1, struct.pack(order + "I", 7))] * extra
    entries.append(struct.pack(order + "HHI4s", 0x0112, kind, 1, struct.pack(order + size, value).ljust(4, b"\0")))
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "I", 8)
    return prefix + head + struct.pack(order + "H", len(entries)) + b"".join(entries) + b"\0" * 4


def attribute(value: int) -> bytes:
    return XMP.format(f'tiff:Orientation="{value}"').encode()


def element(value: int) -> bytes:
    return XMP.replace(" /", f"><tiff:Orientation>{value}</tiff:Orientation></rdf:Description").format("").encode()


def raw_profile(value: int) -> bytes:
    """As ImageMagick writes Exif into a text chunk."""
    block = exif(value, prefix=b"Exif\0\0")
    lines = "\n".join(block.hex()[at : at + 72] for at in range(0, 2 * len(block), 72))
    return f"\nexif\n{len(block):8}\n{lines}\n".encode()


def with_chunk(png: bytes, name: bytes, body: bytes, *, at_end: bool = False) -> bytes:
    at = len(png) - 12 if at_end else HEADER
    chunk = struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    return png[:at] + chunk + png[at:]


def with_segment(jpeg: bytes, body: bytes) -> bytes:
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


def turned_as_pillow_does(data: bytes) -> Pixels:
    picture = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert picture is not None
    return np.asarray(picture.convert("RGB"))


@pytest.fixture
def file(picture: Callable[..., Pixels], saved: Callable[..., bytes]) -> Callable[[str], bytes]:
    return lambda format: saved(Image.fromarray(picture(20, 30)), format)


PNG_NOTES: dict[str, Callable[[int], tuple[bytes, bytes]]] = {
    "eXIf": lambda n: (b"eXIf", exif(n)),
    "eXIf, big-endian": lambda n: (b"eXIf", exif(n, order=">")),
    "eXIf with a prefix": lambda n: (b"eXIf", exif(n, prefix=b"Exif\0\0")),
    "tEXt exif": lambda n: (b"tEXt", b"exif\0" + exif(n)),
    "raw profile": lambda n: (b"tEXt", b"Raw profile type exif\0" + raw_profile(n)),
    "raw profile, packed": lambda n: (b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(raw_profile(n))),
    "raw profile, international": lambda n: (b"iTXt", b"Raw profile type exif\0\0\0\0\0" + raw_profile(n)),
    "XMP attribute": lambda n: (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + attribute(n)),
    "XMP element": lambda n: (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + element(n)),
    "XMP with a language": lambda n: (b"iTXt", b"XML:com.adobe.xmp\0\0\0en\0xmp\0" + attribute(n)),
    "XMP, packed": lambda n: (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(attribute(n))),
    "XMP in tEXt": lambda n: (b"tEXt", b"XML:com.adobe.xmp\0" + attribute(n)),
    "XMP in zTXt": lambda n: (b"zTXt", b"XML:com.adobe.xmp\0\0" + zlib.compress(attribute(n))),
}


@pytest.mark.parametrize("at_end", [False, True], ids=["before the pixels", "after the pixels"])
@pytest.mark.parametrize("note", PNG_NOTES)
def test_a_png_is_turned_by_every_note(note: str, at_end: bool, file: Callable[[str], bytes]) -> None:
    for value in range(1, 9):
        data = with_chunk(file("PNG"), *PNG_NOTES[note](value), at_end=at_end)
        assert np.array_equal(decode(data).rgb, turned_as_pillow_does(data)), value
    assert decode(data).height == 30


@pytest.mark.parametrize("note", ["eXIf", "raw profile", "XMP attribute"])
def test_an_interlaced_or_16_bit_png_is_turned_too(note: str, saved: Callable[..., bytes]) -> None:
    deep = saved(Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30) * 100), "PNG")
    assert decode(with_chunk(deep, *PNG_NOTES[note](6))).rgb.shape == (30, 20, 3)


JPEG_NOTES: dict[str, Callable[[int], bytes]] = {
    "Exif": lambda n: exif(n, prefix=b"Exif\0\0"),
    "XMP attribute": lambda n: b"http://ns.adobe.com/xap/1.0/\0" + attribute(n),
    "XMP element": lambda n: b"http://ns.adobe.com/xap/1.0/\0" + element(n),
}


@pytest.mark.parametrize("note", JPEG_NOTES)
def test_a_jpeg_is_turned_by_every_note(note: str, file: Callable[[str], bytes]) -> None:
    for value in range(1, 9):
        data = with_segment(file("JPEG"), JPEG_NOTES[note](value))
        assert np.array_equal(decode(data).rgb, turned_as_pillow_does(data)), value


@pytest.mark.parametrize("options", [{}, {"lossless": True}])
@pytest.mark.parametrize("note", ["exif", "xmp"])
def test_a_webp_is_turned_by_every_note(
    note: str, options: dict[str, bool], picture: Callable[..., Pixels], saved: Callable[..., bytes]
) -> None:
    for value in range(1, 9):
        block = exif(value, prefix=b"Exif\0\0") if note == "exif" else attribute(value)
        data = saved(Image.fromarray(picture(20, 30)), "WEBP", **{note: block}, **options)
        assert np.array_equal(decode(data).rgb, turned_as_pillow_does(data)), value


def test_exif_counts_before_xmp_wherever_both_tell(file: Callable[[str], bytes]) -> None:
    png, jpeg = file("PNG"), file("JPEG")
    for stated in (1, 3, 6, 0, 9):
        both = with_segment(with_segment(jpeg, JPEG_NOTES["XMP element"](8)), JPEG_NOTES["Exif"](stated))
        assert np.array_equal(decode(both).rgb, turned_as_pillow_does(both)), stated
        both = with_chunk(with_chunk(png, *PNG_NOTES["XMP attribute"](8)), *PNG_NOTES["raw profile"](stated))
        assert np.array_equal(decode(both).rgb, turned_as_pillow_does(both)), stated


@pytest.mark.parametrize("kind", [3, 4, 6, 8, 9])
@pytest.mark.parametrize("order", ["<", ">"])
def test_every_type_of_whole_number_is_read(order: str, kind: int) -> None:
    assert [orientation(exif(n, order=order, kind=kind)) for n in range(1, 9)] == list(range(1, 9))


@pytest.mark.parametrize("value", [0, 9, 255])
def test_an_orientation_that_does_not_exist_means_upright(value: int) -> None:
    assert orientation(exif(value)) == 1 and orientation(exif(value), attribute(6)) == 1
    assert orientation(b"", attribute(value)[:60]) == 1


def test_a_broken_note_means_upright_and_never_another_error(file: Callable[[str], bytes]) -> None:
    whole = exif(6, prefix=b"Exif\0\0")
    for end in range(len(whole) - 12):
        assert orientation(whole[:end]) in (1, 6)
        decode(with_segment(file("JPEG"), whole[:end]))
    for text in (b"", b"\n\n\n\nzz", b"\nexif\n 4\nabc", "\n\n\n\u0660".encode(), b"\xff\n\n\n\xff"):
        assert decode(with_chunk(file("PNG"), b"tEXt", b"Raw profile type exif\0" + text)).height == 20
    for body in (
        b"XML:com.adobe.xmp",
        b"XML:com.adobe.xmp\0",
        b"XML:com.adobe.xmp\0\1\0",
        b"XML:com.adobe.xmp\0\1\0\0\0x",
    ):
        assert decode(with_chunk(file("PNG"), b"iTXt", body)).height == 20
        assert decode(with_chunk(file("PNG"), b"zTXt", body)).height == 20


def test_a_webps_note_that_its_header_does_not_announce_does_not_count(
    picture: Callable[..., Pixels], saved: Callable[..., bytes]
) -> None:
    data = bytearray(saved(Image.fromarray(picture(20, 30)), "WEBP", exif=exif(6, prefix=b"Exif\0\0")))
    data[20] &= ~0x08
    assert np.array_equal(decode(bytes(data)).rgb, turned_as_pillow_does(bytes(data)))


def test_a_note_that_unpacks_to_a_bomb_is_not_unpacked(file: Callable[[str], bytes]) -> None:
    bomb = zlib.compress(b"\0" * 2**26)
    for keyword in (b"Raw profile type exif", b"XML:com.adobe.xmp"):
        assert decode(with_chunk(file("PNG"), b"zTXt", keyword + b"\0\0" + bomb)).height == 20
        assert decode(with_chunk(file("PNG"), b"iTXt", keyword + b"\0\1\0\0\0" + bomb)).height == 20
