"""The part of `comfy_api.latest` that this pack is written with, for runs and type checks without ComfyUI.

Names, defaults and the `/object_info` they lead to follow ComfyUI 0.33. It is narrower than the original: whatever
works here works in ComfyUI, never the other way round. `_inputs` is what every input and output says, `_io` the table
of types, `_schema` and `_node` what a node is, `_ui` what it shows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from . import _io as io
from . import _ui as ui


class ComfyExtension(ABC):
    """What `comfy_entrypoint` returns: the nodes of one pack."""

    async def on_load(self) -> None:
        """Runs once before the nodes are listed; set up what the pack needs."""
        return None

    @abstractmethod
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """The node classes of the pack."""


__all__ = ["ComfyExtension", "io", "ui"]
