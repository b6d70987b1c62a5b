"""What the image nodes do: IMAGE and MASK to URIs and files, and back. Loaded at first use."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from .. import host
from ..imaging.codec import DecodedImage, Stacked, decode, encode_batch, to_tensors
from ..imaging.errors import ImageError
from ..imaging.formats import ImageFormat
from ..imaging.limits import Limits
from ..imaging.uri import is_data_uri, parse_data_uri, to_data_uri
from ..oxen.choices import SendAs
from ..oxen.control import Control
from ..oxen.errors import InvalidParameters, UrlRefused
from ..oxen.fetch import Fetcher, with_retries
from ..oxen.request import member_of
from ..oxen.session import Session
from ..oxen.settings import load_settings
from ..oxen.uploads import upload
from .runs import account_without_key, in_session
from .types import Bytes
from .values import text as text_of

_MAX_URIS = 64
_FETCH_TRIES = 3


async def to_uris(image: torch.Tensor, mask: torch.Tensor | None, send_as: str, format: str, quality: int) -> list[str]:
    """One URI for each picture of an IMAGE [B,H,W,C]; raises ImageError, or what an upload raises."""
    way = member_of(SendAs, send_as, "send_as")
    files = to_files(image, mask, format, quality)
    if way is not SendAs.UPLOAD:
        return [to_data_uri(file) for file in files]
    return await in_session(lambda session: _upload_all(session, files))


async def from_uris(text: str) -> Stacked:
    """The pictures of the URIs in a text with one a line; raises ImageError, InvalidParameters, UrlRefused."""
    uris = [line.strip() for line in text_of(text, "uri").splitlines() if line.strip()]
    if not uris:
        raise InvalidParameters("There is no URI: give http(s) addresses or data URIs, one a line.")
    if len(uris) > _MAX_URIS:
        raise InvalidParameters(f"There are {len(uris)} URIs; at most {_MAX_URIS} are read at once.")
    control = Control()
    return to_tensors(await host.run_off_loop(lambda: _read_all(uris, control), control))


def to_files(image: torch.Tensor, mask: torch.Tensor | None, format: str, quality: int) -> Bytes:
    """One file for each picture of an IMAGE [B,H,W,C]; raises ImageError."""
    chosen = member_of(ImageFormat, format, "format")
    return tuple(encode_batch(image, mask, format=chosen, quality=quality))


def from_files(files: Bytes) -> Stacked:
    """The pictures of some files; raises ImageError."""
    return to_tensors(_decode_all(file.data for file in files))


def _upload_all(session: Session, files: Bytes) -> list[str]:
    repository = session.settings.upload_repository
    return [upload(session.client, file.data, file.media_type, repository) for file in files]


def _read_all(uris: list[str], control: Control) -> list[DecodedImage]:
    settings = load_settings(host.user_folder())
    fetcher = Fetcher(control, account=account_without_key(), allow_private=settings.allow_private_urls)
    try:
        return _decode_all(_bytes_of(uri, fetcher, control) for uri in uris)
    finally:
        fetcher.close()


def _bytes_of(uri: str, fetcher: Fetcher, control: Control) -> bytes:
    if is_data_uri(uri):
        return parse_data_uri(uri)
    try:
        return with_retries(control, _FETCH_TRIES, lambda: fetcher.fetch(uri))
    except UrlRefused as error:
        if uri.lower().startswith(("http:", "https:")):
            raise
        raise error.reworded(f"{error.message} For a file on disk use Load Image.") from None


def _decode_all(files: Iterable[bytes]) -> list[DecodedImage]:
    """Every file decoded, as long as all of them together, at the first one's size, stay within one picture's limit
    four times over; raises ImageError naming the picture.
    """
    limits = Limits()
    pictures: list[DecodedImage] = []
    for number, data in enumerate(files, 1):
        try:
            pictures.append(decode(data, limits))
        except ImageError as error:
            raise type(error)(f"Picture {number}: {error}") from None
        pixels = sum(max(p.width * p.height, pictures[0].width * pictures[0].height) for p in pictures)
        if pixels > 4 * limits.max_pixels:
            raise ImageError(f"The pictures up to number {number} have {pixels / 1e6:.0f} million pixels; read fewer.")
    return pictures
