"""How rows may tell of a job otherwise than it was sent: echoes cut, rewritten or left out, odd times and states."""

from __future__ import annotations

import base64
import io
import time
import unicodedata
from datetime import datetime, timezone
from typing import Any

from PIL import Image

from .faults import Trip
from .parameters import picture_fields
from .records import Job

CUT = 64
Row = dict[str, Any]


def altered(row: Row, job: Job, trip: Trip, base_url: str) -> Row:
    """The row as the switches have it."""
    if fault := trip("list_input_image"):
        _echo_pictures(row, job, fault.text("url"), base_url)
    if (fault := trip("list_prompt")) and isinstance(row.get("prompt"), str):
        row["prompt"] = _prompt(row["prompt"], fault.text("trimmed"))
    if fault := trip("list_numbers"):
        _echo_numbers(row, fault.text("guidance_text"))
    if fault := trip("list_model"):
        row["model_name"] = fault.text("black-forest-labs/{}").format(row["model_name"])
    if fault := trip("list_enqueued_at"):
        row["enqueued_at"] = _time(job.enqueued_at, fault.text("null"))
    row["status"] = _status(row["status"], job, trip)
    return row


def _echo_pictures(row: Row, job: Job, how: str, base_url: str) -> None:
    for name in picture_fields(str(job.params["model"])):
        sent = row.pop(name, None)
        if sent is None or how == "absent":
            continue
        whole = not isinstance(sent, list) or how == "null"
        row[name] = _echo(sent, job, how, base_url) if whole else [_echo(one, job, how, base_url) for one in sent]


def _echo(sent: Any, job: Job, how: str, base_url: str) -> Any:
    if isinstance(sent, dict):
        return {name: _echo(one, job, how, base_url) if isinstance(one, str) else one for name, one in sent.items()}
    if how == "url":
        return f"{base_url}/api/repos/inputs/files/{job.id}/input.png"
    if how == "cut":
        return str(sent)[:CUT]
    if how == "null":
        return None
    if how == "reencoded":
        return _reencoded(str(sent))
    raise ValueError(f"list_input_image takes url, cut, null, reencoded or absent, not {how!r}")


def _reencoded(uri: str) -> str:
    """The same picture as another file; what is no data URI stays as it is."""
    if not uri.startswith("data:"):
        return uri
    out = io.BytesIO()
    with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as picture:
        picture.convert("RGB").save(out, "JPEG")
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()


def _prompt(sent: str, how: str) -> str:
    if how == "trimmed":
        return sent.strip()
    if how == "nfd":
        return unicodedata.normalize("NFD", sent)
    if how == "cut":
        return sent[: max(1, len(sent) // 2)]
    if how == "upper":
        return sent.upper()
    if how == "rewritten":
        return "A photograph in warm evening light, in great detail."
    raise ValueError(f"list_prompt takes trimmed, nfd, cut, upper or rewritten, not {how!r}")


def _echo_numbers(row: Row, how: str) -> None:
    name = "seed" if how.startswith("seed") else "guidance"
    if name not in row:
        return
    if how in ("guidance_text", "seed_text"):
        row[name] = str(row[name])
    elif how == "guidance_near":
        row[name] = row[name] - 1e-7
    elif how == "seed_own":
        row[name] = row[name] + 1_000_003
    else:
        raise ValueError(f"list_numbers takes guidance_text, guidance_near, seed_text or seed_own, not {how!r}")


def _time(seconds: float, how: str) -> int | str | None:
    whole = int(seconds)
    if how == "null":
        return None
    if how == "text":
        return str(whole)
    if how == "iso":
        return datetime.fromtimestamp(whole, timezone.utc).isoformat().replace("+00:00", "Z")
    if how == "ms":
        return int(seconds * 1000)
    if how == "naive":
        return datetime.fromtimestamp(whole).isoformat(sep=" ")
    raise ValueError(f"list_enqueued_at takes null, text, iso, ms or naive, not {how!r}")


def _status(status: str, job: Job, trip: Trip) -> str:
    if fault := trip("poll_odd_status"):
        return fault.text("completed")
    if (fault := trip("status_starting")) and time.time() - job.enqueued_at < fault.number(1.0):
        return "starting"
    if fault := trip("status_case"):
        return status.upper() if fault.value == "upper" else status.title()
    return status
