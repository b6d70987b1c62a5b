"""The scale of each layer by the settings that PEFT and diffusers write into a LoRA file's header."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import LoraError

_KEY = "lora_adapter_metadata"
# PEFT's patterns are matched against the names inside the model.
_PREFIX = re.compile(r"^((base_model\.)?model\.|transformer\.|diffusion_model\.|_orig_mod\.|module\.)+")


@dataclass(frozen=True)
class AdapterConfig:
    """PEFT's settings where the header has them; without them a layer's scale is 1.

    by_pattern: alpha by a regular expression for the end of a layer's name, whole words of it.
    """

    default: float | None
    by_pattern: tuple[tuple[re.Pattern[str], float], ...]
    by_root: bool

    def alpha(self, layer: str) -> float | None:
        """The alpha of a layer that has none of its own: of the first pattern that matches, else the default.

        The rule is PEFT's `get_pattern_key`. Ranks need no pattern, since the matrices have them.
        """
        name = _PREFIX.sub("", layer)
        return next((value for pattern, value in self.by_pattern if pattern.match(name)), self.default)

    def scale(self, alpha: float | None, rank: int) -> float:
        if alpha is None:
            return 1.0
        return alpha / (math.sqrt(rank) if self.by_root else rank)


def adapter_config(metadata: Mapping[str, str], file_name: str) -> AdapterConfig:
    """The settings in a file's header. Raises LoraError where they cannot be read."""
    try:
        saved: dict[str, Any] = json.loads(metadata.get(_KEY, "{}"))
        config = {key.removeprefix("transformer."): value for key, value in saved.items()}
        default = config.get("lora_alpha")
        patterns = dict(config.get("alpha_pattern") or {})
        return AdapterConfig(
            default=None if default is None else float(default),
            by_pattern=tuple((re.compile(rf"(.*\.)?({key})$"), float(value)) for key, value in patterns.items()),
            by_root=bool(config.get("use_rslora", False)),
        )
    except (ValueError, TypeError, AttributeError, re.error, OverflowError, RecursionError) as error:
        raise LoraError(f"{file_name}: its adapter settings cannot be read ({error}). Get the file again.") from error
