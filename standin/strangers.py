"""Jobs that somebody else made with the same key; the stand-in lists them when told to, and bills nobody."""

from __future__ import annotations

import base64
import io

from PIL import Image

from .parameters import MODEL
from .picture import seed_colour
from .records import Job, Status


def strange_job(number: int) -> Job:
    """A finished job with a picture of its own."""
    picture = _png(number)
    params = {
        "model": MODEL,
        "prompt": f"somebody else's edit {number}",
        "input_image": "data:image/png;base64," + base64.b64encode(picture).decode(),
        "aspect_ratio": "match_input_image",
        "guidance": 2.5,
        "seed": 1000 + number,
        "output_format": "png",
    }
    job = Job(params)
    job.status, job.result = Status.SUCCEEDED, picture
    job.started_at = job.completed_at = job.enqueued_at
    return job


def _png(number: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (64, 64), seed_colour(1000 + number)).save(out, "PNG")
    return out.getvalue()
