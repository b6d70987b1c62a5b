"""Whole JPEGs of every legal build are read, and the end of one that was cut is noticed, at the cost of a glance."""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from kontext_bridge.imaging import decoders
from kontext_bridge.imaging.codec import decode
from kontext_bridge.imaging.errors import ImageError
from kontext_bridge.imaging.jpeg import read_jpeg
from kontext_bridge.imaging.limits import Limits
from kontext_bridge.imaging.scans import decode_scans
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
END = b"\xff\xd9"
BUILDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "full colour": {"subsampling": 0},
    "4:2:2": {"subsampling": 1},
    "optimized": {"optimize": True},
    "restarts by row": {"restart_marker_rows": 1},
    "restarts by block": {"restart_marker_blocks": 3},
    "restarts by block, full colour": {"restart_marker_blocks": 5, "subsampling": 0},
}
CODED = {**BUILDS, "progressive": {"progressive": True}}


@pytest.fixture
def jpeg(picture: Callable[..., Pixels], saved: Callable[..., bytes]) -> Callable[..., bytes]:
    def build(mode: str = "RGB", height: int = 37, width: int = 53, **options: Any) -> bytes:
        return saved(Image.fromarray(picture(height, width)).convert(mode), "JPEG", quality=85, **options)

    return build


def shown(data: bytes) -> Pixels:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body


def frame_at(data: bytes) -> int:
    return re.search(rb"\xff[\xc0-\xc2]\0", data).start()  # type: ignore[union-attr]


@pytest.mark.parametrize("count", [1, 2, 9])
@pytest.mark.parametrize("build", CODED)
def test_fill_bytes_before_the_end_mark_are_no_damage(build: str, count: int, jpeg: Callable[..., bytes]) -> None:
    data = jpeg(**CODED[build])
    assert np.array_equal(decode(data[:-2] + b"\xff" * count + END).rgb, shown(data))


@pytest.mark.parametrize("build", CODED)
def test_fill_bytes_before_every_mark_are_no_damage(build: str, jpeg: Callable[..., bytes]) -> None:
    data = jpeg(**CODED[build])
    at, padded = 2, data[:2]
    while data[at + 1] != 0xDA:
        end = at + 2 + struct.unpack_from(">H", data, at + 2)[0]
        padded += b"\xff\xff" + data[at:end]
        at = end
    padded += re.sub(rb"\xff[\x01-\xfe]", lambda mark: b"\xff\xff" + mark[0], data[at:])
    assert len(padded) > len(data) + 12
    assert np.array_equal(decode(padded).rgb, shown(data))


@pytest.mark.parametrize("after", [b"\0" * 700, b"\xff" * 5, b"\r\n", b"\xff\xd9", b"\xff\xd8\xff"])
def test_padding_after_the_end_mark_does_not_matter(after: bytes, jpeg: Callable[..., bytes]) -> None:
    assert np.array_equal(decode(jpeg() + after).rgb, shown(jpeg()))


@pytest.mark.parametrize(
    "before", [b"\0", b"\0" * 40, b"\x7f\xc3", segment(0xFE, b"a note"), segment(0xE5, b"\xff\xd9")]
)
def test_what_stands_between_the_data_and_the_end_mark_does_not_matter(
    before: bytes, jpeg: Callable[..., bytes]
) -> None:
    data = jpeg()
    assert np.array_equal(decode(data[:-2] + before + END).rgb, shown(data))


def test_a_thumbnail_with_an_end_mark_of_its_own_is_not_taken_for_the_picture(jpeg: Callable[..., bytes]) -> None:
    data, small = jpeg(), jpeg(height=8, width=8)
    assert np.array_equal(decode(data[:2] + segment(0xE1, b"Exif\0\0" + small) + data[2:]).rgb, shown(data))
    assert np.array_equal(decode(data[:2] + segment(0xE2, small) + segment(0xFE, b"") + data[2:]).rgb, shown(data))


def test_of_several_pictures_in_one_file_the_first_is_read(
    picture: Callable[..., Pixels], saved: Callable[..., bytes]
) -> None:
    first, second = (Image.fromarray(picture(seed=seed)) for seed in (1, 2))
    data = saved(first, "MPO", save_all=True, append_images=[second])
    assert np.array_equal(decode(data).rgb, shown(data))


def planes(jpeg: Callable[..., bytes], numbers: str) -> bytes:
    """A sequential JPEG of one scan a channel, put together from a grey one: its channels 1, 2 and 3."""
    grey = jpeg("L")
    frame, scan = frame_at(grey), grey.index(b"\xff\xda")
    tables = grey[frame + 2 + struct.unpack_from(">H", grey, frame + 2)[0] : scan]
    size = grey[frame + 5 : frame + 9]
    head = grey[:frame] + segment(0xC0, b"\x08" + size + b"\x03" + b"".join(bytes((n, 0x11, 0)) for n in (1, 2, 3)))
    scans = [segment(0xDA, bytes((1, int(n), 0, 0, 63, 0))) + grey[scan + 10 : -2] for n in numbers]
    return head + tables + b"".join(scans) + END


def test_a_scan_for_each_channel_is_read_and_a_missing_one_noticed(jpeg: Callable[..., bytes]) -> None:
    data = planes(jpeg, "123")
    assert np.array_equal(decode(data).rgb, shown(data))
    for lacking in ("1", "12", "13"):
        with pytest.raises(ImageError, match="truncated: it ends before the first scan of each"):
            decode(planes(jpeg, lacking))
    with pytest.raises(ImageError, match="truncated"):
        decode(data[:-60] + END)


@pytest.mark.parametrize("build", [*BUILDS, "grey", "cmyk", "grey corner", "grey picture"])
def test_a_picture_cut_at_any_byte_and_closed_is_refused_or_whole(
    build: str, jpeg: Callable[..., bytes], saved: Callable[..., bytes], picture: Callable[..., Pixels]
) -> None:
    if build in ("grey", "cmyk"):
        data = jpeg({"grey": "L", "cmyk": "CMYK"}[build], 24, 40)
    elif build in BUILDS:
        data = jpeg(height=24, width=40, **BUILDS[build])
    else:
        pixels = picture(24, 40)
        pixels[8 if build == "grey corner" else 0 :] = 128
        data = saved(Image.fromarray(pixels), "JPEG", subsampling=0)
    whole = shown(data)
    assert np.array_equal(decode(data).rgb, whole)
    start = data.index(b"\xff\xda")
    start += 2 + struct.unpack_from(">H", data, start + 2)[0]
    refused = 0
    ends = [*range(start, len(data) - 90, 7), *range(len(data) - 90, len(data) - 2)]
    for end in ends:
        try:
            assert np.array_equal(decode(data[:end] + END).rgb, whole), end
        except ImageError as error:
            assert "truncated" in str(error)
            refused += 1
    # What is cut off last may lie outside the picture, in the rest of its last blocks.
    assert refused > len(ends) // 2


@pytest.mark.parametrize("after", [segment(0xFE, b"a note of some length"), b"\xff" * 6, b"\xff\xd0", b""])
def test_a_cut_picture_is_noticed_whatever_stands_before_its_end_mark(after: bytes, jpeg: Callable[..., bytes]) -> None:
    data = jpeg()
    stop = len(data) - 100 - (data[-101] == 0xFF)
    with pytest.raises(ImageError, match="truncated"):
        decode(data[:stop] + after + END)


def test_restart_marks_that_are_missing_or_too_many_are_told_apart(jpeg: Callable[..., bytes]) -> None:
    data = jpeg(restart_marker_rows=1)
    marks = [mark.start() for mark in re.finditer(rb"\xff[\xd0-\xd7]", data)]
    assert len(marks) == 2
    assert np.array_equal(decode(data[:-2] + b"\xff\xd2" + END).rgb, shown(data))
    for end in marks:
        with pytest.raises(ImageError, match=r"truncated: .*of 2 restart marks"):
            decode(data[:end] + END)
    with pytest.raises(ImageError, match="truncated"):
        decode(data[: marks[1] + 2] + END)


@pytest.mark.parametrize("build", ["progressive", "one scan a channel"])
def test_a_last_scan_of_several_that_was_cut_at_a_restart_mark_is_refused(
    build: str, jpeg: Callable[..., bytes]
) -> None:
    # One whole interval and nothing behind it: what is put in front of the end mark is passed over there.
    if build == "progressive":
        data = jpeg(progressive=True, restart_marker_blocks=2)
    else:
        data = planes(lambda mode: jpeg(mode, restart_marker_blocks=2), "123")
    assert np.array_equal(decode(data).rgb, shown(data))
    scan = data.rindex(b"\xff\xda")
    marks = [mark.start() for mark in re.finditer(rb"\xff[\xd0-\xd7]", data) if mark.start() > scan]
    assert len(marks) > 10
    for end in marks:
        with pytest.raises(ImageError, match="truncated"):
            decode(data[:end] + END)


@pytest.mark.parametrize("restarts", [0, 2])
@pytest.mark.parametrize("build", ["progressive", "one scan a channel"])
def test_an_earlier_scan_that_was_cut_is_refused_though_the_later_ones_are_whole(
    build: str, restarts: int, jpeg: Callable[..., bytes]
) -> None:
    if build == "progressive":
        data = jpeg(progressive=True, restart_marker_blocks=restarts)
    else:
        data = planes(lambda mode: jpeg(mode, restart_marker_blocks=restarts), "123")
    whole = decode(data).rgb
    assert np.array_equal(whole, shown(data))
    starts = [at.start() for at in re.finditer(rb"\xff\xda", data)]
    for start in starts[:-1]:
        # Up to the tables of the next scan, or its header.
        end = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]").search(data, start + 14).start()
        for cut in range(start + 14, end - 8, 29):
            with pytest.raises(ImageError, match="truncated"):
                decode(data[:cut] + data[end:])


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("build", BUILDS)
def test_the_end_is_checked_without_decoding_the_picture_again(
    build: str, mode: str, jpeg: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = jpeg(mode, 200, 300, **BUILDS[build])
    decoded = []
    original = Image.frombytes

    def counted(mode: str, size: tuple[int, int], *rest: Any) -> Image.Image:
        decoded.append(size[0] * size[1])
        return original(mode, size, *rest)

    monkeypatch.setattr(decoders.Image, "frombytes", counted)
    decode(data)
    assert sum(decoded) < 1.1 * 200 * 300


def spoilt_frame(data: bytes, at: int, value: bytes) -> bytes:
    start = frame_at(data) + 4 + at
    return data[:start] + value + data[start + len(value) :]


def recoded(data: bytes, marker: int) -> bytes:
    at = frame_at(data) + 1
    return data[:at] + bytes((marker,)) + data[at + 1 :]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        pytest.param(lambda d: spoilt_frame(d, 0, b"\x0c"), "12 bits a channel; baseline", id="12 bits"),
        pytest.param(lambda d: spoilt_frame(d, 5, b"\x02"), "2 channels", id="2 channels"),
        pytest.param(lambda d: spoilt_frame(d, 1, b"\0\0"), r"height only after its pixels \(DNL\)", id="DNL"),
        pytest.param(lambda d: spoilt_frame(d, 3, b"\0\0"), "nothing in it", id="no width"),
        pytest.param(lambda d: spoilt_frame(d, 7, b"\0"), "impossible sizes", id="no sampling"),
        pytest.param(lambda d: recoded(d, 0xC5), "hierarchical", id="hierarchical"),
        pytest.param(lambda d: recoded(d, 0xF7), "JPEG-LS", id="JPEG-LS"),
        pytest.param(lambda d: d[:-2], "before its end mark", id="no end"),
        pytest.param(lambda d: d[: d.index(b"\xff\xda")], "before its pixels", id="no scan"),
    ],
)
def test_what_is_not_read_is_named(spoil: Callable[[bytes], bytes], words: str, jpeg: Callable[..., bytes]) -> None:
    with pytest.raises(ImageError, match=words):
        decode(spoil(jpeg()))


def decoded_pixels(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The pixels of every decoding by Pillow from here on."""
    decoded: list[int] = []
    original = Image._getdecoder

    class Counted:
        def __init__(self, decoder: Any) -> None:
            self._decoder = decoder

        def setimage(self, core: Any, box: tuple[int, int, int, int]) -> None:
            decoded.append(box[2] * box[3])
            self._decoder.setimage(core, box)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._decoder, name)

    monkeypatch.setattr(Image, "_getdecoder", lambda *more: Counted(original(*more)))
    return decoded


def scans_of(data: bytes) -> list[tuple[int, int]]:
    """Where the data of each scan begin and end."""
    starts = [
        at.start() + 2 + int.from_bytes(data[at.end() : at.end() + 2], "big") for at in re.finditer(b"\xff\xda", data)
    ]
    mark = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
    return [(start, mark.search(data, start).start()) for start in starts]  # type: ignore[union-attr]


LARGE = 2200  # above decoders._LARGE in all


@pytest.mark.parametrize("build", ["progressive", "one scan a channel"])
def test_a_large_picture_of_several_scans_is_decoded_once_and_still_checked(
    build: str, jpeg: Callable[..., bytes], saved: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = np.random.default_rng(3).integers(-9, 9, (LARGE, LARGE, 1))
    rows = np.linspace(20, 220, LARGE)[:, None, None] + np.array([0, 10, -10])
    pixels = (rows + noise).astype(np.uint8)
    if build == "progressive":
        data = saved(Image.fromarray(pixels), "JPEG", quality=85, progressive=True)
    else:
        data = planes(lambda mode: saved(Image.fromarray(pixels).convert(mode), "JPEG", quality=85), "123")
    decoded = decoded_pixels(monkeypatch)
    assert np.array_equal(decode(data).rgb, shown(data))
    assert sum(decoded) < 2.1 * LARGE * LARGE, "once here, and once to compare with"
    for start, end in scans_of(data):
        if end - start < 8:
            continue  # nothing but zeros, which are what libjpeg fills up with
        for cut in {start, start + (end - start) // 2, max(start, end - 300)}:
            with pytest.raises(ImageError, match="truncated"):
                decode(data[: cut - (data[cut - 1] == 0xFF)] + data[end:])


@pytest.mark.parametrize("restarts", [0, 2])
@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"quality": 20}, {"quality": 100}], ids=str)
def test_one_pass_finds_every_long_cut_and_suspects_no_whole_scan(
    options: dict[str, Any], restarts: int, saved: Callable[..., bytes], picture: Callable[..., Pixels]
) -> None:
    for seed, (mode, height, width) in enumerate([("RGB", 120, 190), ("L", 97, 65), ("CMYK", 64, 64), ("RGB", 9, 230)]):
        one = Image.fromarray(picture(height, width, seed=seed)).convert(mode)
        data = saved(one, "JPEG", **{"quality": 85, "progressive": True, "restart_marker_blocks": restarts, **options})
        assert not looks_cut(data)
        if restarts:
            continue
        for start, end in scans_of(data):
            for cut in range(start, end - 64, 37):
                assert looks_cut(data[: cut - (data[cut - 1] == 0xFF)] + data[end:]), (start, cut, end)


def looks_cut(data: bytes) -> bool:
    parts = read_jpeg(data, Limits())
    mode, layout = decoders._JPEG_MODES[len(parts.channels)]
    picture, cut = decode_scans(parts.pieces(), mode, layout, (parts.width, parts.height))
    assert cut or np.array_equal(np.asarray(picture.convert("RGB")), shown(data))
    return cut
