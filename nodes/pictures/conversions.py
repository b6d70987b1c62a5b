"""Pictures to URIs and bytes, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comfy_api.latest import io

from .. import inputs
from ..types import Bytes, KontextBytes

if TYPE_CHECKING:
    import torch


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
                inputs.send_as_input(
                    "What the URIs are: auto and data URI give data URIs; Oxen upload gives addresses of files "
                    "uploaded to Oxen, in the public repository that the settings name or else in your playground."
                ),
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
        from . import transfer as pictures

        return io.NodeOutput("\n".join(await pictures.to_uris(image, mask, send_as, format, quality)))


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
        from . import transfer as pictures

        stacked = await pictures.from_uris(uri)
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
        from . import transfer as pictures

        return io.NodeOutput(pictures.to_files(image, mask, format, quality))


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
        from . import transfer as pictures

        stacked = pictures.from_files(bytes)
        return io.NodeOutput(stacked.image, stacked.mask)
