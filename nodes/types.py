"""The socket types of this pack: a submitted job, pictures as file bytes, and the canvas of an edit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from comfy_api.latest import io

if TYPE_CHECKING:
    from ..imaging.codec import EncodedImage

KontextJob = io.Custom("KONTEXT_JOB")
KontextBytes = io.Custom("KONTEXT_BYTES")
KontextCanvas = io.Custom("KONTEXT_CANVAS")

Bytes: TypeAlias = "tuple[EncodedImage, ...]"


@dataclass(frozen=True)
class JobHandle:
    """Edits that were submitted, in order: their records in the ledger, and the generation ids known.

    places: where each record stands among all the edits that were asked for; asked: how many those were.
    """

    records: tuple[int, ...]
    generation_ids: tuple[str, ...]
    places: tuple[int, ...] = ()
    asked: int = 0
