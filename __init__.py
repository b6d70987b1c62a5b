"""Kontext Bridge: FLUX.1 Kontext [dev] edits in ComfyUI, remote through Oxen.ai or local in FP8."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from comfy_api.latest import ComfyExtension

WEB_DIRECTORY = "./web"


async def comfy_entrypoint() -> ComfyExtension:
    """Called once by ComfyUI at start-up; nothing heavier than the node schemas is imported here."""
    from .nodes import KontextBridge
    from .routes import register

    register()
    return KontextBridge()
