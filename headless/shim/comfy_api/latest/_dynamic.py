"""DynamicCombo: a list of which each choice has inputs of its own, shown below it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ._inputs import ComfyType, Input, input_dict

_Input = Input


@dataclass
class Option:
    """A choice and its inputs."""

    key: str
    inputs: list[Input]

    def as_dict(self) -> dict[str, Any]:
        return {"key": self.key, "inputs": input_dict(self.inputs)}


class DynamicCombo(ComfyType, io_type="COMFY_DYNAMICCOMBO_V3"):
    """The node receives one dict: the choice under the input's own name, and what was given of the choice's inputs."""

    Option = Option

    @dataclass(kw_only=True)
    class Input(_Input):
        advanced: bool | None = field(default=None, init=False)
        options: list[Option] = field(kw_only=False)

        def as_dict(self) -> dict[str, Any]:
            return super().as_dict() | {"options": [one.as_dict() for one in self.options]}
