"""The one line of text that a node says of itself, from any thread, and also after its run."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import Any

from . import comfyui

EVENT = "kontext_bridge.says"
_REMEMBERED = 1000
_PAUSE = 0.3

# By client and node the run that speaks for it: what an earlier one still has to say comes too late.
_newest: OrderedDict[tuple[Any, str], str] = OrderedDict()


class Voice:
    """Speaks for a node, of the run that is being executed where it is made; for nobody where there is no node.

    ComfyUI's own progress text is not used: its front end takes half of the node for it, and takes it away again when
    the run ends (1.58). web/js/says.js shows this one.
    """

    def __init__(self, node_id: str | None = None) -> None:
        self._node = comfyui.executing_node() if node_id is None else node_id
        self._client = comfyui.client()
        self._run = comfyui.run_id()
        self._last = float("-inf")
        if self._node is not None:
            _newest[self._client, self._node] = self._run
            _newest.move_to_end((self._client, self._node))
            while len(_newest) > _REMEMBERED:
                _newest.popitem(last=False)

    def say(self, text: str) -> None:
        """Set the node's line; without effect where the node is being run anew meanwhile."""
        self._last = time.monotonic()
        if self._node is not None and _newest.get((self._client, self._node)) == self._run:
            comfyui.tell(EVENT, self._node, text, self._run, self._client)

    def murmur(self, text: str) -> None:
        """`say`, a few times a second at most: for what changes with every step."""
        if time.monotonic() - self._last >= _PAUSE:
            self.say(text)
