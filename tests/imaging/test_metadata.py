"""What a file says beside its pixels goes over to another file, as far as it is true there."""

from __future__ import annotations

import io
import json
import zlib
from typing import Any

import numpy as np
import pytest
from kontext_bridge.imaging.codec import decode
from kontext_bridge.imaging.metadata import FileNotes, read_notes, with_notes
from kontext_bridge.imaging.png import chunk
from PIL import Image, ImageCms, PngImagePlugin

FORMATS = ("PNG", "JPEG", "WEBP")
MAKE, ORIENTATION, ARTIST, THUMBNAIL = 0x010F, 0x0112, 0x013B, 0x0201
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6" exif:PixelXDimension="30" '
    b'photoshop:ICCProfile="Adobe RGB (1998)" dc:creator="Ann"><tiff:ImageWidth>30</tiff:ImageWidth>'
    b"<xmp:Thumbnails>AAAA</xmp:Thumbnails></rdf:Description></x:xmpmeta>"
)
WORKFLOW = json.dumps({"3": {"class_type": "KSampler", "inputs": {}}})
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
SIZE = (20, 12)


def pixels(size: tuple[int, int] = SIZE) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8))


def exif(**more: Any) -> Image.Exif:
    block = Image.Exif()
    block[ORIENTATION], block[ARTIST], block[0x0100] = 6, "Ann Author", 30
    inner = block.get_ifd(0x8769)
    inner[0xA002], inner[0xA001], inner[0x9003] = 30, 65535, "2026:11:26 10:00:00"
    block.get_ifd(0x8825)[1] = "N"
    for tag, value in more.items():
        block[int(tag.removeprefix("t"))] = value
    return block


def a_file(kind: str, size: tuple[int, int] = SIZE, **more: Any) -> bytes:
    out = io.BytesIO()
    pixels(size).save(out, kind, lossless=True, **more)
    return out.getvalue()


def opened(data: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(data))
    picture.load()
    return picture


@pytest.mark.parametrize("before", FORMATS)
@pytest.mark.parametrize("after", FORMATS)
def test_what_a_file_says_is_in_the_other_and_true_there(before: str, after: str) -> None:
    source = a_file(before, (30, 18), exif=exif(), xmp=XMP, icc_profile=PROFILE)
    if before == "PNG":
        source = source[:33] + b"".join(chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP)) + source[33:]
    result = a_file(after)
    same = with_notes(result, read_notes(source).of_result(*SIZE, own_space=True))
    srgb = with_notes(result, read_notes(source).of_result(*SIZE, own_space=False))
    for data in (same, srgb):
        assert np.array_equal(decode(data).rgb, decode(result).rgb), "upright already, and no pixel touched"
        told = opened(data).getexif()
        assert (told[ARTIST], told[ORIENTATION], told[0x0100]) == ("Ann Author", 1, SIZE[0])
        assert told.get_ifd(0x8769)[0xA002] == SIZE[0] and told.get_ifd(0x8769)[0x9003].startswith("2026")
        assert told.get_ifd(0x8825)[1] == "N"
        xmp = read_notes(data).xmp
        assert b'dc:creator="Ann"' in xmp and b'tiff:Orientation="1"' in xmp and b"Thumbnails" not in xmp
        assert b"<tiff:ImageWidth>20</" in xmp and b'PixelXDimension="20"' in xmp
    assert opened(same).info["icc_profile"] == PROFILE and "icc_profile" not in opened(srgb).info
    assert opened(same).getexif().get_ifd(0x8769)[0xA001] == 65535
    assert opened(srgb).getexif().get_ifd(0x8769)[0xA001] == 1
    assert b"Adobe RGB" in read_notes(same).xmp and b"Adobe RGB" not in read_notes(srgb).xmp


def test_the_texts_of_a_png_go_to_a_png_and_no_workflow_goes_anywhere() -> None:
    texts = PngImagePlugin.PngInfo()
    for keyword, text in (("Copyright", "Ann"), ("prompt", "{}"), ("workflow", "{}"), ("note", WORKFLOW)):
        texts.add_text(keyword, text)
    texts.add_itxt("Title", "Straße", zip=True)
    texts.add_text("Comment", json.dumps({"last_node_id": 3}), zip=True)
    texts.add_text("Software", "theirs")
    notes = read_notes(a_file("PNG", pnginfo=texts))
    own = a_file("PNG", pnginfo=(mine := PngImagePlugin.PngInfo()) and (mine.add_text("Software", "ours") or mine))
    assert opened(with_notes(own, notes)).info == {"Copyright": "Ann", "Title": "Straße", "Software": "ours"}
    assert with_notes(jpeg := a_file("JPEG"), notes) == jpeg


@pytest.mark.parametrize("kind", FORMATS)
def test_a_workflow_in_exif_or_xmp_goes_nowhere(kind: str) -> None:
    block = exif(t271=f"workflow:{WORKFLOW}", t272=f"prompt:{WORKFLOW}")
    block.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + WORKFLOW.encode("utf-16-le")
    source = a_file(kind, exif=block, xmp=XMP.replace(b"Ann", WORKFLOW.replace('"', "'").encode() + b'"class_type":'))
    data = with_notes(a_file("PNG"), read_notes(source).of_result(*SIZE, own_space=True))
    assert b"class_type" not in data.replace(b"\0", b"") and opened(data).getexif()[ARTIST] == "Ann Author"


def test_the_small_picture_of_before_does_not_go_along() -> None:
    small = a_file("JPEG", (8, 8))
    block = exif().tobytes().removeprefix(b"Exif\0\0")
    order = "little" if block[:2] == b"II" else "big"
    first = int.from_bytes(block[4:8], order)
    after = first + 2 + 12 * int.from_bytes(block[first : first + 2], order)
    second = len(block) + len(block) % 2
    entries = b"".join(
        tag.to_bytes(2, order) + (4).to_bytes(2, order) + (1).to_bytes(4, order) + value.to_bytes(4, order)
        for tag, value in ((THUMBNAIL, second + 30), (THUMBNAIL + 1, len(small)))
    )
    block = block[:after] + second.to_bytes(4, order) + block[after + 4 :] + b"\0" * (len(block) % 2)
    block += (2).to_bytes(2, order) + entries + bytes(4) + small
    source = a_file("JPEG", exif=b"Exif\0\0" + block)
    assert small in source
    data = with_notes(a_file("JPEG"), read_notes(source).of_result(*SIZE, own_space=True))
    assert small not in data and opened(data).getexif()[ARTIST] == "Ann Author"
    assert not opened(data).getexif().get_ifd(1)


def test_a_profile_that_is_not_whole_or_not_of_rgb_is_left_out() -> None:
    grey = PROFILE[:16] + b"GRAY" + PROFILE[20:]
    for wrong in (grey, PROFILE[:-1], PROFILE[:90], b"x" * 200):
        assert read_notes(a_file("PNG", icc_profile=wrong)).profile == b""
    long = PROFILE[:4] + PROFILE[4:] + bytes(200_000)
    long = len(long).to_bytes(4, "big") + long[4:]
    assert opened(with_notes(a_file("JPEG"), FileNotes(profile=long))).info["icc_profile"] == long


def test_notes_of_another_picture_replace_those_that_are_there() -> None:
    for kind in FORMATS:
        there = a_file(kind, exif=exif(t315="Bob Before"), icc_profile=PROFILE)
        data = with_notes(there, read_notes(a_file("PNG", exif=exif())).of_result(*SIZE, own_space=True))
        assert opened(data).getexif()[ARTIST] == "Ann Author" and b"Bob Before" not in data
        assert opened(data).info["icc_profile"] == PROFILE, "the file's own stays where nothing takes its place"


def test_a_note_too_large_for_a_jpeg_is_left_out_of_it() -> None:
    notes = read_notes(a_file("PNG", exif=exif(t270="long " * 20_000)))
    assert len(notes.exif) > 100_000
    assert opened(with_notes(a_file("PNG"), notes)).getexif()[ARTIST] == "Ann Author"
    assert not opened(with_notes(a_file("JPEG"), notes)).getexif()


def test_what_is_broken_or_a_bomb_is_left_out_and_quickly() -> None:
    whole = exif().tobytes().removeprefix(b"Exif\0\0")
    for cut in range(0, len(whole), 3):
        FileNotes(exif=whole[:cut]).of_result(*SIZE, own_space=False)
        FileNotes(exif=whole[:cut] + b"\xff" * (len(whole) - cut)).of_result(*SIZE, own_space=False)
    for tag in (b"<tiff:Orientation ", b"<xmp:Thumbnails", b' tiff:Orientation="', b" tiff:Orientation" + b" " * 50):
        FileNotes(xmp=tag * (300_000 // len(tag))).of_result(*SIZE, own_space=False)
    bomb = zlib.compress(bytes(8 << 20))
    data = a_file("PNG")
    data = data[:33] + b"".join(chunk(b"iCCP", b"x\0\0" + bomb)) + b"".join(chunk(b"zTXt", b"x\0\0" + bomb)) + data[33:]
    assert read_notes(data).profile == b""
    assert read_notes(b"no picture") == FileNotes() == read_notes(a_file("PNG")[:50])
