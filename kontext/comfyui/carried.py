"""What a MODEL carries of its file's purpose, through clones and LoRA, and back out of any MODEL."""

from __future__ import annotations

from typing import Any

from ..checkpoint.purpose import Purpose

_KEY = "kontext_bridge_purpose"


def carry(patcher: Any, purpose: Purpose) -> None:
    """Have this ModelPatcher and its clones know what the model was made for."""
    patcher.set_attachments(_KEY, purpose)


def purpose_of(model: Any) -> Purpose:
    """What a MODEL was made for; one that says nothing, such as any from ComfyUI's own loader, is a Kontext."""
    found = getattr(model, "attachments", {}).get(_KEY)
    return found if isinstance(found, Purpose) else Purpose()
