"""The words of an edit, the same on every node: what it asks for, in this order, and the shapes of its result.

Ranges and defaults: the service's page of flux-kontext-dev, and what FLUX.1 Kontext was trained for.
"""

from __future__ import annotations

from enum import Enum

from .fields import Field, Kind
from .values import Unfit

SEEDS = 2**64
VARIATIONS = (1, 4)
# US dollars that a folder may cost; 0 is no limit.
USD_LIMIT = (0.0, 100_000.0)


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


class Keep(str, Enum):
    """Whether an edit is laid back onto its picture, so that only what was edited differs."""

    OFF = "off"
    AUTO = "auto"


PROMPT = Field(
    "prompt",
    "prompt",
    Kind.TEXT,
    "What to change, in a sentence. Say what must stay as it is, too.",
    # far above what any instruction needs: the model reads its first 512 tokens, some 2,000 characters
    bounds=(1, 20_000),
    placeholder="prompt: what to change, in a sentence",
)
ASPECT_RATIO = Field(
    "aspect_ratio",
    "aspect_ratio",
    Kind.CHOICE,
    "The shape of the result. match_input_image keeps that of the picture.",
    default=AspectRatio.MATCH.value,
    choices=tuple(one.value for one in AspectRatio),
)
STEPS = Field(
    "steps",
    "num_inference_steps",
    Kind.WHOLE,
    "Sampling steps, 4 to 50. Fewer are faster and rougher.",
    default=28,
    bounds=(4, 50),
)
GUIDANCE = Field(
    "guidance",
    "guidance",
    Kind.NUMBER,
    "How closely the prompt is followed, 0 to 10. Kontext was made for 2.5.",
    default=2.5,
    bounds=(0.0, 10.0),
    step=0.1,
    decimals=0.01,
)
SEED = Field(
    "seed",
    "seed",
    Kind.WHOLE,
    "Picture 1 gets this seed, picture 2 the next, and so on. The same seed with the same inputs gives the same "
    "picture.",
    default=0,
    bounds=(0, SEEDS - 1),
)
# What every edit node begins with, remote or local, in this order.
EDIT = (PROMPT, ASPECT_RATIO, STEPS, GUIDANCE, SEED)


def wrong_with_prompt(prompt: object) -> str | None:
    """What keeps a prompt from being used, with what to do; None where nothing does."""
    try:
        PROMPT.read(prompt)
    except Unfit as error:
        return str(error)
    return None
