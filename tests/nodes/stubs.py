"""Nodes and listeners of the tests' own: any value in, any value out, and what a run said of its nodes."""

from __future__ import annotations

import threading
from typing import Any

from comfy_api.latest import io
from kontext_bridge.headless.told import Report


class Given(io.ComfyNode):
    """Any value of the test's own as a node's output."""

    values: dict[str, Any] = {}  # noqa: RUF012

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(node_id="Given", inputs=[io.String.Input("name")], outputs=[io.AnyType.Output()])

    @classmethod
    def fingerprint_inputs(cls, **_: Any) -> float:
        return float("nan")

    @classmethod
    def execute(cls, name: str) -> io.NodeOutput:
        return io.NodeOutput(cls.values[name])


class Taken(io.ComfyNode):
    """An output node for whatever is connected."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Taken", inputs=[io.AnyType.Input("value")], outputs=[io.AnyType.Output()], is_output_node=True
        )

    @classmethod
    def execute(cls, value: Any) -> io.NodeOutput:
        return io.NodeOutput(value)


class Heard(Report):
    """What a run said of its nodes."""

    def __init__(self) -> None:
        self.fractions: list[float] = []
        self.texts: list[str] = []
        self._lock = threading.Lock()

    def progress(self, node_id: str, value: float, total: float) -> None:
        with self._lock:
            self.fractions.append(value / total)

    def text(self, node_id: str, text: str) -> None:
        with self._lock:
            self.texts.append(text)
