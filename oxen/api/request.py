"""One edit as plain, validated data, the same for the remote and the local side."""

from __future__ import annotations

import math
import unicodedata
from dataclasses import dataclass, replace
from enum import Enum
from numbers import Integral, Real
from typing import Any, TypeVar

from ..errors import InvalidParameters

MODEL = "flux-kontext-dev"
SEED_RANGE = 2**31
STEPS = (4, 50)
GUIDANCE = (0.0, 10.0)
QUALITY = (0, 100)
VARIATIONS = (1, 4)
# Far above what any instruction needs: the model reads its first 512 tokens, some 2,000 characters.
PROMPT_CHARACTERS = 20_000
_NAMESPACE_CHARACTERS = 200
_SHOWN = 60

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
        if wrong := wrong_with_prompt(self.prompt):
            raise InvalidParameters(f"{wrong} Nothing was sent.")
        namespace = text_of("namespace", "" if self.namespace is None else self.namespace).strip()
        if wrong := _wrong_characters("namespace", namespace, _NAMESPACE_CHARACTERS):
            raise InvalidParameters(f"{wrong} Nothing was sent.")
        read: dict[str, object] = {
            "aspect_ratio": member_of(AspectRatio, self.aspect_ratio, "aspect_ratio"),
            "output_format": member_of(OutputFormat, self.output_format, "output_format"),
            "namespace": namespace or None,
            "steps": _whole("steps", self.steps, STEPS),
            "guidance": _within("guidance", self.guidance, GUIDANCE),
            "output_quality": _whole("output_quality", self.output_quality, QUALITY),
            "seed": _whole("seed", self.seed, (0, math.inf)),
            "disable_safety_checker": _switch("disable_safety_checker", self.disable_safety_checker),
        }
        for name, value in read.items():
            object.__setattr__(self, name, value)

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
        raise InvalidParameters(
            f"{name} is {shown_value(value)}; it takes one of {choices}. Nothing was sent."
        ) from None


def text_of(name: str, value: object) -> str:
    """A text that came over a link, where ComfyUI checks nothing; raises InvalidParameters for what is none."""
    if not isinstance(value, str):
        raise InvalidParameters(
            f"{name} takes a text, and what is connected to it gives {_kind(value)}: {shown_value(value)}. "
            "Nothing was sent."
        )
    return value


def wrong_with_prompt(prompt: object) -> str | None:
    """What keeps a prompt from being sent, with what to do; None where nothing does."""
    if not isinstance(prompt, str):
        return f"The prompt takes a text, and what is connected to it gives {_kind(prompt)}: {shown_value(prompt)}."
    if not prompt.strip():
        return "The prompt is empty: say in a sentence what to change."
    return _wrong_characters("prompt", prompt, PROMPT_CHARACTERS)


def _wrong_characters(name: str, text: str, most: int) -> str | None:
    if len(text) > most:
        return f"The {name} has {len(text):,} characters, beginning {shown_value(text)}; it takes at most {most:,}."
    for place, character in enumerate(text, 1):
        kind = unicodedata.category(character)
        if kind == "Cs":
            return f"The {name} holds half of a character, which no text may, at place {place}; type it again."
        if kind == "Cc" and character not in "\t\n\r":
            return (
                f"The {name} holds the control character U+{ord(character):04X} at place {place}, which cannot be seen "
                "and may not be sent; delete it, or type the text again."
            )
    return None


def _kind(value: object) -> str:
    return "nothing" if value is None else f"a value of type {type(value).__name__}"


def shown_value(value: object) -> str:
    """A value for an error's text, cut where it is long."""
    if isinstance(value, int) and abs(value) >= 10**_SHOWN:
        return "a number of very many digits"  # Python itself prints no more than some thousands
    shown = ascii(value[:_SHOWN] if isinstance(value, str) else value)
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}…"


def _number(value: object) -> int | float | None:
    """Python's own number for any kind of one, NumPy's among them; None for what is none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, Integral):
        return int(value)
    try:
        return float(value) if isinstance(value, Real) else None
    except OverflowError:
        return None


def _within(name: str, value: object, bounds: tuple[float, float]) -> int | float:
    low, high = bounds
    number = _number(value)
    if number is None or not low <= number <= high:
        raise InvalidParameters(f"{name} is {shown_value(value)}; it takes {low:g} to {high:g}. Nothing was sent.")
    return number


def _whole(name: str, value: object, bounds: tuple[float, float]) -> int:
    low, high = bounds
    number = _within(name, value, bounds) if high < math.inf else _number(value)
    # a FLOAT that came over a link may stand for a whole number
    if number is None or number < low or number % 1:
        upto = f" to {high:g}" if high < math.inf else ""
        raise InvalidParameters(
            f"{name} is {shown_value(value)}; it takes a whole number from {low:g}{upto}. Nothing was sent."
        )
    return int(number)


def _switch(name: str, value: object) -> bool:
    if not isinstance(value, Real) or value not in (0, 1):
        raise InvalidParameters(f"{name} is {shown_value(value)}; it takes true or false. Nothing was sent.")
    return bool(value)
