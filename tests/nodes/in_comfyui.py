"""What the tests of nodes in the real ComfyUI send there."""

from __future__ import annotations

from typing import Any


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    """A node of an API file. Two underscores in a name are the point of an input below a list of choices."""
    return {"class_type": class_type, "inputs": {name.replace("__", "."): value for name, value in inputs.items()}}
