"""One edit as plain, validated data, the same for the remote and the local side."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, TypeVar

from .errors import InvalidParameters

MODEL = "flux-kontext-dev"
SEED_RANGE = 2**31
STEPS = (4, 50)
GUIDANCE = (0.0, 10.0)
QUALITY = (0, 100)
VARIATIONS = (1, 4)

Member = TypeVar("Member", bound=Enum)


class AspectRatio(str, Enum):
    """The shapes that the service documents; MATCH keeps the picture's own."""

    MATCH = "match_input_image"
    SQUARE = "1:1"
    WIDE_16_9 = "16:9"
    WIDE_21_9 = "21:9"
    WIDE_3_2 = "3:2"
    TALL_2_3 = "2:3"
    TALL_4_5 = "4:5"
    WIDE_5_4 = "5:4"
    TALL_3_4 = "3:4"
    WIDE_4_3 = "4:3"
    TALL_9_16 = "9:16"
    TALL_9_21 = "9:21"


class OutputFormat(str, Enum):
    """What the service can return; PNG alone is lossless."""

    PNG = "png"
    WEBP = "webp"
    JPG = "jpg"


@dataclass(frozen=True)
class EditParameters:
    """What an edit asks for, without its picture.

    prompt: the instruction, not empty.
    aspect_ratio, output_format: members of the enums above, or their values.
    steps: 4 to 50. guidance: 0 to 10. output_quality: 0 to 100, ignored by the service for png.
    seed: any whole number from 0; `seed_sent` is what the service gets.
    namespace: the user or organisation that is billed and owns the result; None means the key's own user.

    Raises InvalidParameters naming the field and its range. Ranges: the model page of flux-kontext-dev.
    """

    prompt: str
    seed: int
    aspect_ratio: AspectRatio = AspectRatio.MATCH
    steps: int = 28
    guidance: float = 2.5
    output_format: OutputFormat = OutputFormat.PNG
    output_quality: int = 95
    disable_safety_checker: bool = False
    namespace: str | None = None
    model: str = MODEL

    def __post_init__(self) -> None:
        if not self.prompt.strip():
            raise InvalidParameters("The prompt is empty: say in a sentence what to change. Nothing was sent.")
        try:
            self.prompt.encode()
        except UnicodeEncodeError:
            raise InvalidParameters(
                "The prompt holds half of a character, which no text may; type it again. Nothing was sent."
            ) from None
        object.__setattr__(self, "aspect_ratio", member_of(AspectRatio, self.aspect_ratio, "aspect_ratio"))
        object.__setattr__(self, "output_format", member_of(OutputFormat, self.output_format, "output_format"))
        object.__setattr__(self, "namespace", (self.namespace or "").strip() or None)
        _within("steps", self.steps, STEPS)
        _within("guidance", self.guidance, GUIDANCE)
        _within("output_quality", self.output_quality, QUALITY)
        if self.seed < 0:
            raise InvalidParameters(f"seed is {self.seed}; it takes a whole number from 0. Nothing was sent.")

    @property
    def seed_sent(self) -> int:
        """The seed reduced to 0 … 2^31 - 1, which any 32-bit service takes; the service states no range."""
        return self.seed % SEED_RANGE

    def with_seed(self, seed: int) -> EditParameters:
        """The same edit with another seed."""
        return replace(self, seed=seed)

    def body(self) -> dict[str, Any]:
        """The JSON fields of the request except the picture.

        `aspect_ratio` and `output_format` are always sent: the service's own defaults reframe and compress.
        """
        fields: dict[str, Any] = {
            "model": self.model,
            "prompt": self.prompt,
            "aspect_ratio": self.aspect_ratio.value,
            "num_inference_steps": self.steps,
            "guidance": self.guidance,
            "seed": self.seed_sent,
            "output_format": self.output_format.value,
            "output_quality": self.output_quality,
            "disable_safety_checker": self.disable_safety_checker,
        }
        if self.namespace is not None:
            fields["target_namespace"] = self.namespace
        return fields


def member_of(kind: type[Member], value: object, name: str) -> Member:
    """The member of an enum by its value; raises InvalidParameters listing the choices."""
    try:
        return kind(value)
    except ValueError:
        choices = ", ".join(str(member.value) for member in kind)
        raise InvalidParameters(f"{name} is {value!r}; it takes one of {choices}. Nothing was sent.") from None


def _within(name: str, value: float, bounds: tuple[float, float]) -> None:
    low, high = bounds
    if not math.isfinite(value) or not low <= value <= high:
        raise InvalidParameters(f"{name} is {value}; it takes {low:g} to {high:g}. Nothing was sent.")
