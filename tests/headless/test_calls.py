"""One call of a node for each element of its lists."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest
from comfy_api.latest import io
from kontext_bridge.headless.calls import call


class FailsForEach(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(node_id="FailsForEach", inputs=[io.Int.Input("number")], outputs=[io.Int.Output()])

    @classmethod
    async def execute(cls, number: int) -> io.NodeOutput:
        await asyncio.sleep(0)
        raise ValueError(f"number {number} is refused")


def test_of_elements_that_all_fail_the_first_is_told_and_the_others_make_no_noise() -> None:
    noise: list[dict[str, Any]] = []

    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: noise.append(context))
        with pytest.raises(ValueError, match="number 1 is refused"):
            await call(FailsForEach, "execute", {"number": [1, 2, 3]}, {})
        gc.collect()

    asyncio.run(run())
    gc.collect()
    assert noise == []
