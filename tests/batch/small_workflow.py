"""A workflow of one edit."""

from __future__ import annotations

import json
from pathlib import Path

_WIDGETS = {
    "prompt": "x",
    "aspect_ratio": "match_input_image",
    "steps": 28,
    "guidance": 2.5,
    "seed": 0,
    "variations": 1,
    "output_format": "jpg",
    "output_quality": 95,
    "disable_safety_checker": False,
    "wait": "events and polling",
    "send_as": "auto",
    "timeout": 60,
    "namespace": "",
    "result": "reuse",
    "if_some_fail": "stop with the error",
}


def workflow(folder: Path, **widgets: object) -> Path:
    """An edit of a picture, saved; widgets: what the edit is asked otherwise. Gives its file."""
    document = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "nothing.png"}},
        "2": {"class_type": "KontextEdit", "inputs": {"image": ["1", 0], **_WIDGETS, **widgets}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "edit"}},
    }
    path = folder / "workflow.json"
    path.write_text(json.dumps(document))
    return path
