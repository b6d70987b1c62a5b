"""FLUX.1 Kontext [dev] at the service. Names, ranges and defaults: the model's page of parameters."""

from __future__ import annotations

from dataclasses import replace

from ....editing.fields import Field, Kind
from ....editing.words import ASPECT_RATIO, GUIDANCE, PROMPT, SEED, STEPS, AspectRatio
from .shape import Shape, ratio
from .spec import ModelSpec

FLUX_KONTEXT_DEV = ModelSpec(
    id="flux-kontext-dev",
    name="FLUX.1 Kontext [dev]",
    about="Edits one picture as a sentence says, and keeps the rest.",
    shape=Shape(
        field=ASPECT_RATIO.name,
        ratios={one: found for one in ASPECT_RATIO.choices if (found := ratio(one)) is not None},
        keeps=AspectRatio.MATCH.value,
    ),
    fields=(
        PROMPT,
        ASPECT_RATIO,
        STEPS,
        GUIDANCE,
        replace(
            SEED,
            # what any 32-bit service takes; this one states no range
            wraps=2**31,
            tooltip="Picture 1 gets this seed, picture 2 the next, and so on. The same seed with the same inputs is "
            "the same request, and is not paid again. Seeds above 2147483647 are reduced modulo 2^31 for the service.",
        ),
        Field(
            "output_format",
            "output_format",
            Kind.CHOICE,
            "The file format of the result. png alone is lossless.",
            default="png",
            choices=("png", "webp", "jpg"),
            advanced=True,
        ),
        Field(
            "output_quality",
            "output_quality",
            Kind.WHOLE,
            "Quality of a webp or jpg result, 0 to 100. Has no effect on png.",
            default=95,
            bounds=(0, 100),
            idle=("output_format", "png"),
            advanced=True,
        ),
        Field(
            "disable_safety_checker",
            "disable_safety_checker",
            Kind.SWITCH,
            "Asks the service to leave its safety checker out.",
            default=False,
            advanced=True,
        ),
    ),
)
