"""Pictures to URIs and bytes, and back."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from comfy_api.latest import io

from .. import host
from ..imaging.codec import DecodedImage, EncodedImage, ImageFormat, decode, encode_batch, to_tensors
from ..imaging.errors import ImageError
from ..imaging.limits import Limits
from ..imaging.uri import is_data_uri, parse_data_uri, to_data_uri
from ..oxen.control import Control
from ..oxen.errors import InvalidParameters
from ..oxen.fetch import Fetcher, with_retries
from ..oxen.request import member_of
from ..oxen.session import Session
from ..oxen.settings import load_settings
from ..oxen.uploads import SendAs, upload
from . import inputs
from .runs import account_without_key, in_session
from .types import Bytes, KontextBytes

_MAX_URIS = 64
_FETCH_TRIES = 3


class KontextImageToURI(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KontextImageToURI",
            display_name="Image to URI",
            category=inputs.CATEGORY,
            description="Pictures as URIs: data URIs, or addresses of files uploaded to Oxen.ai.",
            search_aliases=["base64", "data uri", "image to url", "upload image"],
            inputs=[
                io.Image.Input("image", tooltip="The pictures; each becomes one URI."),
                inputs.mask_input(),
                inputs.send_as_input(),
                inputs.format_input(),
                inputs.quality_input(),
            ],
            outputs=[io.String.Output(display_name="uri", tooltip="The URIs, one a line.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    async def execute(
        cls, image: torch.Tensor, send_as: str, format: str, quality: int, mask: torch.Tensor | None = None
    ) -> io.NodeOutput:
        way = member_of(SendAs, send_as, "send_as")
        chosen = member_of(ImageFormat, format, "format")
        pictures = encode_batch(image, mask, format=chosen, quality=quality)
        if way is not SendAs.UPLOAD:
            return io.NodeOutput("\n".join(map(to_data_uri, pictures)))
        return io.NodeOutput("\n".join(await in_session(lambda session: _upload_all(session, pictures))))


class KontextURIToImage(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KontextURIToImage",
            display_name="URI to Image",
            category=inputs.CATEGORY,
            description="Pictures from data URIs or web addresses. Addresses inside the own network are not fetched "
            "unless the settings of this machine allow it.",
            search_aliases=["load image from url", "base64 to image", "data uri"],
            inputs=[
                io.String.Input(
                    "uri",
                    multiline=True,
                    placeholder="uri: http(s) or data, one a line",
                    tooltip="http(s) addresses or data URIs, one a line. PNG, WebP, JPEG or GIF.",
                )
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The pictures, at the first one's size."),
                io.Mask.Output(display_name="mask", tooltip="Their alpha: 1 where transparent."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    async def execute(cls, uri: str) -> io.NodeOutput:
        uris = [line.strip() for line in uri.splitlines() if line.strip()]
        if not uris:
            raise InvalidParameters("There is no URI: give http(s) addresses or data URIs, one a line.")
        if len(uris) > _MAX_URIS:
            raise InvalidParameters(f"There are {len(uris)} URIs; at most {_MAX_URIS} are read at once.")
        control = Control()
        pictures = await host.run_off_loop(lambda: _read_all(uris, control), control)
        stacked = to_tensors(pictures)
        return io.NodeOutput(stacked.image, stacked.mask)


class KontextEncodeImage(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KontextEncodeImage",
            display_name="Image to Bytes",
            category=inputs.CATEGORY,
            description="Pictures as the bytes of image files, as APIs take them.",
            search_aliases=["encode image", "image to png", "image bytes"],
            inputs=[
                io.Image.Input("image", tooltip="The pictures to encode."),
                inputs.mask_input(),
                inputs.format_input(),
                inputs.quality_input(),
            ],
            outputs=[KontextBytes.Output(display_name="bytes", tooltip="One file a picture.")],
        )

    @classmethod
    def execute(cls, image: torch.Tensor, format: str, quality: int, mask: torch.Tensor | None = None) -> io.NodeOutput:
        chosen = member_of(ImageFormat, format, "format")
        return io.NodeOutput(tuple(encode_batch(image, mask, format=chosen, quality=quality)))


class KontextDecodeImage(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KontextDecodeImage",
            display_name="Bytes to Image",
            category=inputs.CATEGORY,
            description="Pictures from the bytes of image files.",
            search_aliases=["decode image", "bytes to image"],
            inputs=[KontextBytes.Input("bytes", tooltip="What Image to Bytes gives.")],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The pictures, at the first one's size."),
                io.Mask.Output(display_name="mask", tooltip="Their alpha: 1 where transparent."),
            ],
        )

    @classmethod
    def execute(cls, bytes: Bytes) -> io.NodeOutput:
        stacked = to_tensors(_decode_all([picture.data for picture in bytes]))
        return io.NodeOutput(stacked.image, stacked.mask)


def _upload_all(session: Session, pictures: list[EncodedImage]) -> list[str]:
    repository = session.settings.upload_repository
    return [upload(session.client, picture.data, picture.media_type, repository) for picture in pictures]


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
    return with_retries(control, _FETCH_TRIES, lambda: fetcher.fetch(uri))


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
