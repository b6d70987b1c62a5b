"""A JPEG's structure (ITU T.81): its segments walked as libjpeg does, and the file put together again from those.

libjpeg fills up a picture whose data end early and only warns, where nobody hears it. So a JPEG tells here how to
find out: by a Probe, which costs next to nothing, by what libjpeg takes in scan by scan (scans.py), or by bytes put in
front of its end mark, which are skipped in a whole file but become pixels in such a one.

Of an arithmetically coded one it cannot be found out. Its coder may leave out all zeros at the end of a scan (T.81,
D.1.8), and its decoder goes on with zeros for ever, so that what is left of such a scan when its end is cut off is a
legal and whole scan of another picture. Only missing restart marks are noticed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from .containers import JPEG, damaged, truncated
from .errors import ImageError
from .limits import Limits
from .orientation import orientation

# A real file has a few dozen scans; more only serve to burn time.
_MAX_SCANS = 200
_RESTARTS = np.arange(0xD0, 0xD8, dtype=np.uint8)
_MAX_BETWEEN = 1 << 14
# Twice as many as there are 8x8 blocks in the largest picture that is read.
_MAX_MARKS = 1 << 21
_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"

_START, _END, _SCAN, _INTERVAL, _ADOBE, _COMMENT, _NOTHING = 0xD8, 0xD9, 0xDA, 0xDD, 0xEE, 0xFE, 0x01
_MARK_OF_END = bytes((0xFF, _END))
_SEQUENTIAL, _ARITHMETIC = (0xC0, 0xC1), 0xC9
_FRAMES = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}
_READ = "baseline and progressive ones of 8 bits a channel are read"
_UNREAD = {0xCB: "a lossless JPEG with arithmetic coding", 0xF7: "JPEG-LS"}
_UNREAD.update(dict.fromkeys((0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF), "a hierarchical JPEG"))
# libjpeg's own limit for a side.
_MAX_SIDE = 65500

Segment = tuple[int, bytes]


@dataclass(frozen=True)
class Channel:
    """One channel of a frame: how many 8x8 blocks of it, across and down, a unit of coding holds."""

    number: int
    across: int
    down: int


@dataclass(frozen=True)
class Scan:
    """A scan's header, where its data begin in the file, and how many units of coding lie between its restart marks."""

    header: bytes
    begin: int
    interval: int


@dataclass(frozen=True)
class Probe:
    """A JPEG to decode at an eighth of its size, where each block is one pixel and next to no work.

    It is the original (or its last restart interval) made longer by blocks that it has no data for. libjpeg leaves
    a block mid-grey, 128, if the data ended in an earlier one. So where the first added block, `at` (x, y), is of
    another shade in the first band, there were data for every block of the picture itself. Where it is mid-grey,
    that may have been its shade.
    """

    data: bytes
    size: tuple[int, int]
    at: tuple[int, int]


@dataclass(frozen=True)
class JpegParts:
    """A JPEG's essentials.

    coding: the marker of its frame. interval: units of coding between restart marks, 0 without. segments: marker and
    body of those before the first scan, without metadata. scans: from the first scan's header up to the end mark.
    last, end: where in `scans` the data of the last restart interval (of one scan: else of all) begin and end.
    earlier: where those of the scans before the last one end.
    """

    width: int
    height: int
    channels: tuple[Channel, ...]
    coding: int
    interval: int
    orientation: int
    segments: tuple[Segment, ...]
    scans: bytes
    is_one_scan: bool
    last: int
    end: int
    earlier: tuple[int, ...]

    @property
    def is_huffman(self) -> bool:
        """Whether it is not arithmetically coded."""
        return self.coding < _ARITHMETIC

    def file(self, filler: bytes = b"") -> bytes:
        """The file put together again, with `filler` where the data of each scan end."""
        return filler.join(self.pieces())

    def pieces(self) -> list[bytes]:
        """The file put together again, in pieces that end where the data of each scan do, and one with what is left."""
        ends = (0, *self.earlier, self.end, len(self.scans))
        first, *others = (self.scans[start:end] for start, end in pairwise(ends))
        others[-1] += _MARK_OF_END
        return [_before_scans(self.segments) + first, *others]

    def probe(self) -> Probe | None:
        """What tells that its data are whole; None where that cannot be told so."""
        first = self.channels[0]
        if self.coding not in _SEQUENTIAL or not self.is_one_scan or (first.across, first.down) != self._largest:
            return None
        across, down, per_row, units = self._units
        if self.interval:
            units -= (units - 1) // self.interval * self.interval
        height = 8 * down * (units // per_row + 1)
        if height > _MAX_SIDE:
            return None
        segments = [
            (marker, body[:1] + struct.pack(">H", height) + body[3:] if marker == self.coding else body)
            for marker, body in self.segments
            if marker != _INTERVAL
        ]
        at = units % per_row * across, units // per_row * down
        header = self.scans[: int.from_bytes(self.scans[2:4], "big") + 2]
        return Probe(
            _joined(segments, header + self.scans[self.last : self.end]), (-(-self.width // 8), height // 8), at
        )

    def within(self, restarts: NDArray[np.int64]) -> JpegParts:
        """The same with `last` and `end` by the places of its restart marks; raises ImageError where some lack."""
        if self.coding not in _SEQUENTIAL or not self.is_one_scan:
            return self
        restarts = restarts[restarts >= self.last]
        needed = (self._units[3] - 1) // self.interval if self.interval else 0
        if len(restarts) < needed:
            raise _lacks_restarts(len(restarts), needed)
        last = int(restarts[needed - 1]) + 2 if needed else self.last
        end = _before_fill(self.scans, int(restarts[needed])) if len(restarts) > needed else self.end
        return replace(self, last=last, end=end)

    def check_scan(self, scan: Scan, restarts: int) -> None:
        """Raise ImageError where a scan, of whatever coding, has too few restart marks: libjpeg would pass over
        whatever stands in front of the next mark in place of one.
        """
        needed = (self._units_of(scan.header) - 1) // scan.interval if scan.interval else 0
        if restarts < needed:
            raise _lacks_restarts(restarts, needed)

    def _units_of(self, header: bytes) -> int:
        across, down = (8 * side for side in self._largest)
        width, height = self.width, self.height
        # The only channel of a scan is coded in blocks of its own, of which some do not fill a unit of all.
        alone = [channel for channel in self.channels if header[0] == 1 and channel.number == header[1]]
        for channel in alone:
            width, height = width * channel.across, height * channel.down
        return -(-width // across) * -(-height // down)

    @property
    def _largest(self) -> tuple[int, int]:
        return max(c.across for c in self.channels), max(c.down for c in self.channels)

    @property
    def _units(self) -> tuple[int, int, int, int]:
        """Blocks across and down a unit of coding, units a row, and units in all; of a single scan."""
        across, down = self._largest if len(self.channels) > 1 else (1, 1)
        per_row = -(-self.width // (8 * across))
        return across, down, per_row, per_row * -(-self.height // (8 * down))


def read_jpeg(data: bytes, limits: Limits) -> JpegParts:
    """A JPEG's parts; the file must reach its end mark. What follows the mark is not looked at."""
    frame, coding, exif, xmp, interval = b"", 0, b"", b"", 0
    kept: list[Segment] = []
    start = len(data)
    for marker, at, body in segments(data):
        if marker == _SCAN:
            start = at
            break
        if marker in _FRAMES:
            if frame:
                raise damaged(JPEG, "its size is stated twice")
            frame, coding = body, marker
            _check_frame(frame, coding)
            limits.check_size(*_size(frame), media_type=JPEG)
        elif marker == _INTERVAL and len(body) == 2:
            interval = int.from_bytes(body, "big")
        elif marker == 0xE1 and body.startswith(_EXIF):
            exif = exif or body
        elif marker == 0xE1 and body.startswith(_XMP):
            xmp = body
        is_metadata = marker == _COMMENT or (0xE1 <= marker <= 0xEF and marker != _ADOBE)
        if not is_metadata:
            kept.append((marker, body))
    if not frame:
        raise damaged(JPEG, "a scan comes before its size")
    width, height = _size(frame)
    channels = tuple(Channel(frame[at], frame[at + 1] >> 4, frame[at + 1] & 15) for at in range(6, 6 + 3 * frame[5], 3))
    marks = _marks(data, start)
    stops, finish, scans = _scans(data, marks, interval)
    headers = [scan.header for scan in scans]
    scanned = {number for header in headers for number in header[1 : 1 + 2 * header[0] : 2]}
    if not scanned.issuperset(channel.number for channel in channels):
        raise truncated(JPEG, "before the first scan of each of its channels")
    parts = JpegParts(
        width=width,
        height=height,
        channels=channels,
        coding=coding,
        interval=interval,
        orientation=orientation(exif, xmp),
        segments=tuple(kept),
        scans=data[start:finish],
        is_one_scan=len(headers) == 1,
        last=4 + len(headers[0]),
        end=stops[-1] - start,
        earlier=tuple(stop - start for stop in stops[:-1]),
    )
    restarts = marks[(marks < stops[-1]) & _are_restarts(data, marks)]
    for scan, stop in zip(scans, stops, strict=True):
        first, behind = np.searchsorted(restarts, (scan.begin, stop))
        parts.check_scan(scan, int(behind - first))
    return parts.within(restarts - start)


def _lacks_restarts(found: int, needed: int) -> ImageError:
    return truncated(JPEG, f"before its last pixel: it has {found} of {needed} restart marks")


def _joined(segments: Iterable[Segment], scans: bytes) -> bytes:
    return b"".join((_before_scans(segments), scans, _MARK_OF_END))


def _before_scans(segments: Iterable[Segment]) -> bytes:
    parts = [bytes((0xFF, _START))]
    for marker, body in segments:
        parts += (bytes((0xFF, marker)), struct.pack(">H", len(body) + 2), body)
    return b"".join(parts)


def _check_frame(frame: bytes, coding: int) -> None:
    """Raise ImageError for a frame that is broken, or of a kind that is not read."""
    if coding in _UNREAD:
        raise ImageError(f"The {JPEG} picture is {_UNREAD[coding]}; {_READ}.")
    if len(frame) < 6 or len(frame) < 6 + 3 * frame[5]:
        raise damaged(JPEG, "its size is cut short")
    if frame[0] != 8:
        raise ImageError(f"The {JPEG} picture has {frame[0]} bits a channel; {_READ}.")
    if frame[5] not in (1, 3, 4):
        raise ImageError(f"The {JPEG} picture has {frame[5]} channels; 1 (grey), 3 (colour) and 4 (CMYK) are read.")
    if not all(
        1 <= number <= 4 for factors in frame[7 : 6 + 3 * frame[5] : 3] for number in (factors >> 4, factors & 15)
    ):
        raise damaged(JPEG, "its channels have impossible sizes")
    if _size(frame)[1] == 0:
        raise ImageError(f"The {JPEG} picture tells its height only after its pixels (DNL), which is not read.")


def _size(frame: bytes) -> tuple[int, int]:
    height, width = struct.unpack_from(">HH", frame, 1)
    return width, height


def segments(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(marker, where it starts, its body) up to and with the first scan's header."""
    at = 2
    while True:
        start = data.find(b"\xff", at)
        at = start + 1
        while data[at : at + 1] == b"\xff":
            at += 1
        if start < 0 or at + 3 > len(data):
            raise truncated(JPEG, "before its pixels")
        marker = data[at]
        at += 1
        if marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD7:
            continue
        if marker in (_START, _END):
            raise damaged(JPEG, "it starts or ends again before its pixels")
        end = at + int.from_bytes(data[at : at + 2], "big")
        if end > len(data):
            raise truncated(JPEG, "before its pixels")
        yield marker, at - 2, data[at + 2 : end]
        at = max(end, at + 2)


def _marks(data: bytes, start: int) -> NDArray[np.int64]:
    """Where, from the first scan on, 0xFF is followed by anything but 0 (then it is a byte of data) or another 0xFF."""
    view = np.frombuffer(data, np.uint8)[start:]
    is_mark = view[:-1] == 0xFF
    is_mark &= view[1:] != 0
    is_mark &= view[1:] != 0xFF
    if np.count_nonzero(is_mark) > _MAX_MARKS:
        raise damaged(JPEG, f"it has more than {_MAX_MARKS} marks")
    return np.flatnonzero(is_mark) + start


def _are_restarts(data: bytes, marks: NDArray[np.int64]) -> NDArray[np.bool_]:
    return np.isin(np.frombuffer(data, np.uint8)[marks + 1], _RESTARTS)


def _before_fill(data: bytes, at: int) -> int:
    """Where a mark begins with the further 0xFF that may stand in front of it."""
    while data[at - 1] == 0xFF:
        at -= 1
    return at


def _scans(data: bytes, marks: NDArray[np.int64], interval: int) -> tuple[list[int], int, list[Scan]]:
    """Where each scan's data end and where the end mark is, all with the fill in front of it, and the scans."""
    scans: list[Scan] = []
    stops: list[int] = []
    end = 0
    in_scan = False
    # Anything but a restart mark ends a scan.
    for number, mark in enumerate(marks[~_are_restarts(data, marks)].tolist()):
        marker = data[mark + 1]
        if mark < end:
            continue
        if in_scan:
            stops.append(_before_fill(data, mark))
        if marker == _END:
            return stops, _before_fill(data, mark), scans
        in_scan = marker == _SCAN
        end = mark + 2
        if marker != _NOTHING:
            end += int.from_bytes(data[mark + 2 : mark + 4], "big")
        if marker == _INTERVAL:
            interval = int.from_bytes(data[mark + 4 : mark + 6], "big")
        if marker == _SCAN:
            scans.append(Scan(data[mark + 4 : end], end, interval))
            if len(scans[-1].header) < 6:
                raise damaged(JPEG, "a scan has no header")
        if len(scans) > _MAX_SCANS or number > _MAX_BETWEEN:
            raise damaged(JPEG, f"it has more than {_MAX_SCANS} scans, or {_MAX_BETWEEN} marks between them")
    raise truncated(JPEG, "before its end mark")
