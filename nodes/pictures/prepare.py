"""Kontext Prepare and Kontext Restore: from a picture to what the model sees, and back onto the picture."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from comfy_api.latest import io

from ...editing.words import AspectRatio
from ...oxen.errors import InvalidParameters
from .. import checks, inputs
from ..types import KontextCanvas

if TYPE_CHECKING:
    import torch

    from ...imaging.canvas import Canvas

_MEGAPIXELS = (0.01, 4.0)
_MARGIN = (0, 2048)
_FEATHER = (0, 512)


class KontextPrepare(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KontextPrepare",
            display_name="Kontext Prepare",
            category=inputs.CATEGORY,
            description="Makes of a picture, or of the region around a mask, what Kontext edits best: about a "
            "megapixel, scaled evenly, filled up by reflection, never stretched or cropped. Kontext Restore puts the "
            "edit back.",
            search_aliases=["flux kontext image scale", "crop to mask", "inpaint crop", "resize for kontext"],
            inputs=[
                io.Image.Input("image", tooltip="The pictures to edit."),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="What may change: 1 inside. Only the region around it is edited, at full resolution. One "
                    "mask for all pictures, or one for each. An empty mask is no mask.",
                ),
                io.Float.Input(
                    "megapixels",
                    default=1.0,
                    min=_MEGAPIXELS[0],
                    max=_MEGAPIXELS[1],
                    step=0.1,
                    round=0.001,
                    tooltip="The size to edit at. Kontext was made for 1, the demo model for 0.016. Pictures near that "
                    "size are not scaled.",
                ),
                io.Int.Input(
                    "margin",
                    default=64,
                    min=_MARGIN[0],
                    max=_MARGIN[1],
                    tooltip="How many pixels around the mask Kontext sees of its surroundings. More gives a better "
                    "fit, less gives more detail.",
                ),
                io.Combo.Input(
                    "aspect_ratio",
                    options=inputs.choice(AspectRatio),
                    default=AspectRatio.MATCH.value,
                    tooltip="The shape of the canvas. match_input_image keeps that of the picture or region, up to "
                    "21:9; another is filled up by reflection, which Kontext Restore cuts off again.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="What to edit."),
                KontextCanvas.Output(display_name="canvas", tooltip="For Kontext Restore: where it came from."),
                io.Int.Output(display_name="width", tooltip="The width to sample at, in pixels."),
                io.Int.Output(display_name="height", tooltip="The height to sample at, in pixels."),
            ],
        )

    @classmethod
    def execute(
        cls, image: torch.Tensor, megapixels: float, margin: int, aspect_ratio: str, mask: torch.Tensor | None = None
    ) -> io.NodeOutput:
        from ...imaging import canvas as canvases
        from ...imaging.pixels import check_image

        image, margin = check_image(image), checks.whole(margin, "margin", _MARGIN)
        megapixels = checks.within(megapixels, "megapixels", _MEGAPIXELS)
        shape = checks.member(AspectRatio, aspect_ratio, "aspect_ratio")
        size = None
        if shape is not AspectRatio.MATCH:
            size = canvases.pick_size(shape.value, image.shape[2], image.shape[1], megapixels)
        # Until Kontext Restore says how far to fade, the room for it is remembered in its place.
        canvas = canvases.prepare(
            image,
            mask,
            size=size,
            megapixels=megapixels,
            margin=margin,
            feather=margin,
            longest=canvases.LONGEST,
        )
        height, width = canvas.prepared.shape[1:3]
        return io.NodeOutput(canvas.prepared, canvas, width, height)


class KontextRestore(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KontextRestore",
            display_name="Kontext Restore",
            category=inputs.CATEGORY,
            description="Puts an edit back where Kontext Prepare took it from, at the picture's own size. With a mask, "
            "every pixel outside it and its feather stays exactly what it was.",
            search_aliases=["inpaint stitch", "paste back", "uncrop", "composite edit"],
            inputs=[
                io.Image.Input("image", tooltip="The edited pictures: one for each, or several of one picture."),
                KontextCanvas.Input("canvas", tooltip="From Kontext Prepare."),
                io.Int.Input(
                    "feather",
                    default=16,
                    min=_FEATHER[0],
                    max=_FEATHER[1],
                    tooltip="Over how many pixels outside the mask the edit fades out; at most the margin of Kontext "
                    "Prepare.",
                ),
            ],
            outputs=[io.Image.Output(display_name="image", tooltip="The pictures with the edit, at their own size.")],
        )

    @classmethod
    def execute(cls, image: torch.Tensor, canvas: Canvas, feather: int) -> io.NodeOutput:
        from ...imaging import canvas as canvases

        if not isinstance(canvas, canvases.Canvas):
            raise InvalidParameters(
                "canvas takes what Kontext Prepare gives; something else is connected. Nothing was sent."
            )
        feather = checks.whole(feather, "feather", _FEATHER)
        return io.NodeOutput(canvases.restore(image, replace(canvas, feather=min(feather, canvas.feather))))
