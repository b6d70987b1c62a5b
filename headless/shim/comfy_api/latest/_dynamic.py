"""DynamicCombo: a list of which each choice has inputs of its own, shown below it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ._inputs import ComfyType, Input, input_dict

_Input = Input


class DynamicCombo(ComfyType, io_type="COMFY_DYNAMICCOMBO_V3"):
    """The node gets one dict: the choice under the input's own name, and its inputs, None where left out."""

    @dataclass
    class Option:
        """A choice and its inputs."""

        key: str
        inputs: list[_Input]

        def as_dict(self) -> dict[str, Any]:
            return {"key": self.key, "inputs": input_dict(self.inputs)}

    @dataclass(kw_only=True)
    class Input(_Input):
        advanced: bool | None = field(default=None, init=False)
        options: list[DynamicCombo.Option] = field(kw_only=False)

        def as_dict(self) -> dict[str, Any]:
            return super().as_dict() | {"options": [one.as_dict() for one in self.options]}
