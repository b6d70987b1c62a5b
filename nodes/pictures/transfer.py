"""What the image nodes do: IMAGE and MASK to URIs and files, and back. Loaded at first use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus

import torch

from ... import host
from ...imaging.codec import DecodedImage, EncodedImage, Stacked, decode, encode_batch, to_tensors
from ...imaging.errors import ImageError, ImageTooLarge
from ...imaging.formats import ImageFormat
from ...imaging.limits import Limits
from ...imaging.uri import is_data_uri, names_base64, parse_data_uri, split_uris, to_data_uri
from ...oxen.api.uploads import upload
from ...oxen.choices import SendAs
from ...oxen.control import Control
from ...oxen.errors import InvalidParameters, UrlRefused
from ...oxen.http.fetch import Fetcher, with_retries
from ...oxen.jobs.session import Session
from ...oxen.settings import load_settings
from ..checks import member, whole
from ..checks import text as text_of
from ..sessions import account_without_key, home, in_session
from ..types import Bytes

_MAX_URIS = 64
_FETCH_TRIES = 3


@dataclass(frozen=True)
class _Advice:
    """What to do about a picture that is too large, or that cannot be read, by where it came from."""

    too_large: str
    unreadable: str


_OF_DATA = _Advice(
    "Scale it down first, or save it in a format that compresses better.",
    "Copy the whole URI again, or save the picture anew.",
)
_OF_A_LINK = _Advice(
    "Give the address of a smaller copy.",
    "Open the address in a browser to see what it really returns, and run again if that is a picture.",
)
_OF_BYTES = _Advice(
    "Scale it down before it becomes bytes, or take a format that compresses better.",
    "Take the bytes from Image to Bytes, or save the picture anew as PNG.",
)


async def to_uris(image: torch.Tensor, mask: torch.Tensor | None, send_as: str, format: str, quality: int) -> list[str]:
    """One URI for each picture of an IMAGE [B,H,W,C]; raises ImageError, or what an upload raises."""
    way = member(SendAs, send_as, "send_as")
    files = await host.run_off_loop(lambda: to_files(image, mask, format, quality), Control())
    if way is not SendAs.UPLOAD:
        return [to_data_uri(file) for file in files]
    return await in_session(lambda session: _upload_all(session, files))


async def from_uris(text: str) -> Stacked:
    """The pictures of the URIs in a text with one a line; raises ImageError, InvalidParameters, UrlRefused."""
    uris = split_uris(text_of(text, "uri"))
    if not uris:
        raise InvalidParameters("There is no URI: give http(s) addresses or data URIs, one a line.")
    if len(uris) > _MAX_URIS:
        raise InvalidParameters(f"There are {len(uris)} URIs; at most {_MAX_URIS} are read at once.")
    control = Control()
    return await host.run_off_loop(lambda: _stacked(_read_all(uris, control)), control)


def to_files(image: torch.Tensor, mask: torch.Tensor | None, format: str, quality: int) -> Bytes:
    """One file for each picture of an IMAGE [B,H,W,C]; raises ImageError."""
    chosen = member(ImageFormat, format, "format")
    return tuple(encode_batch(image, mask, format=chosen, quality=whole(quality, "quality")))


def from_files(files: Bytes) -> Stacked:
    """The pictures of some files; raises ImageError, and InvalidParameters for what is none."""
    if not isinstance(files, tuple) or not all(isinstance(file, EncodedImage) for file in files):
        raise InvalidParameters("bytes takes what Image to Bytes gives; something else is connected. Nothing was sent.")
    return _stacked(_decode_all((partial(_data, file), _OF_BYTES) for file in files))


def _stacked(pictures: Sequence[DecodedImage]) -> Stacked:
    """Pictures as one IMAGE; raises ImageError, also where this machine has no room for them."""
    try:
        return to_tensors(pictures)
    except MemoryError:
        count, first = len(pictures), pictures[0]
        raise ImageTooLarge(
            f"This machine has too little memory left for {count} x {first.width}x{first.height} pixels. Read fewer or "
            "smaller pictures at once, or close other programs."
        ) from None


def _data(file: EncodedImage) -> bytes:
    return file.data


def _upload_all(session: Session, files: Bytes) -> list[str]:
    repository = session.settings.upload_repository
    return [upload(session.client, file.data, file.media_type, repository) for file in files]


def _read_all(uris: list[str], control: Control) -> list[DecodedImage]:
    settings = load_settings(home())
    fetcher = Fetcher(control, account=account_without_key(), allow_private=settings.allow_private_urls)
    try:
        return _decode_all(_source(uri, fetcher, control) for uri in uris)
    finally:
        fetcher.close()


_Source = tuple[Callable[[], bytes], _Advice]


def _source(uri: str, fetcher: Fetcher, control: Control) -> _Source:
    if is_data_uri(uri):
        return (lambda: parse_data_uri(uri)), _OF_DATA
    return (lambda: _fetched(uri, fetcher, control)), _OF_A_LINK


def _fetched(uri: str, fetcher: Fetcher, control: Control) -> bytes:
    try:
        return with_retries(control, _FETCH_TRIES, lambda: fetcher.fetch(uri))
    except UrlRefused as error:
        if error.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            raise error.reworded(f"{error.message} {_OF_A_LINK.too_large}") from None
        if uri.lower().startswith(("http:", "https:")):
            raise
        if said := names_base64(uri):
            raise InvalidParameters(said) from None
        raise error.reworded(f"{error.message} For a file on disk use Load Image.") from None


def _decode_all(sources: Iterable[_Source]) -> list[DecodedImage]:
    """Every file decoded, as long as all of them together, at the first one's size, stay within one picture's limit
    four times over; raises ImageError naming the picture and what to do.
    """
    limits = Limits()
    pictures: list[DecodedImage] = []
    for number, (get, advice) in enumerate(sources, 1):
        try:
            pictures.append(decode(get(), limits))
        except ImageError as error:
            what_to_do = advice.too_large if isinstance(error, ImageTooLarge) else advice.unreadable
            raise type(error)(f"Picture {number}: {error} {what_to_do}") from None
        pixels = sum(max(p.width * p.height, pictures[0].width * pictures[0].height) for p in pictures)
        if pixels > 4 * limits.max_pixels:
            raise ImageError(f"The pictures up to number {number} have {pixels / 1e6:.0f} million pixels; read fewer.")
    return pictures
