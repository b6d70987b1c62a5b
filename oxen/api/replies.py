"""What the service says, read into values. Pure: bytes and JSON in, frozen dataclasses or errors out."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from decimal import Decimal
from enum import Enum
from typing import Any

from ..errors import UnexpectedReply, UnknownStatus
from ..http.envelope import error_text, has_own_error, parse_json
from .prices import Price, read_amount, read_price

_SHOWN = 300
_ID_SHOWN = 11
# A number of seconds above this one, which lies in the year 5138, counts milliseconds.
_MOST_SECONDS = 1e11
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
EVENT_NAME = "media_generation_completed"


class JobStatus(str, Enum):
    """UNKNOWN stands for what no document lists; only ever in a list."""

    QUEUED = "queued"
    PROCESSING = "processing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"

    @property
    def terminal(self) -> bool:
        return self in {JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED}


@dataclass(frozen=True)
class Row:
    """One generation as the queue or the history tells it.

    generation_id: empty in a list's row that names none. enqueued_at (0 where it cannot be read), started_at,
    completed_at: unix seconds. cost: US dollars, only ever in the history.
    parameters: what was submitted, as echoed; `input_image` may be a whole data URI.
    """

    generation_id: str
    status: JobStatus
    model: str = ""
    enqueued_at: int = 0
    started_at: int | None = None
    completed_at: int | None = None
    result_url: str | None = None
    error_message: str | None = None
    cost: Decimal | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class JobEvent:
    """A completion event: `status` is SUCCEEDED (with `url`) or FAILED (with `error`)."""

    generation_id: str
    status: JobStatus
    url: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class EditImage:
    """One picture of a synchronous reply: its file bytes, or the URL to fetch them from."""

    data: bytes | None = field(default=None, repr=False)
    url: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Listed:
    """The rows of a list; `strange` are those without a usable id, which may be anybody's."""

    rows: tuple[Row, ...]
    strange: tuple[Row, ...] = ()


@dataclass(frozen=True)
class History:
    """One page of past generations; `total_cost` in US dollars, `pages` and `entries` where the service tells."""

    rows: tuple[Row, ...]
    page: int
    pages: int | None
    entries: int | None
    total_cost: Decimal | None
    strange: tuple[Row, ...] = ()


@dataclass(frozen=True)
class Model:
    """A model object; `schema` is its request schema."""

    id: str
    name: str
    description: str
    price: Price
    pricing_method: str | None
    schema: Mapping[str, Any] | None = field(repr=False)

    @property
    def cost_per_image(self) -> Decimal | None:
        """US dollars, where every picture costs the same."""
        return self.price.flat


def is_generation_id(text: str) -> bool:
    """Whether a text has the form of a generation id (a UUID in practice), and so may go into a path."""
    return _ID.fullmatch(text) is not None


def shown_id(text: str) -> str:
    """The beginning of what is no id, as it is told: too short to give a key away that was pasted for one."""
    return repr(text) if len(text) < _ID_SHOWN else f"{text[:_ID_SHOWN]!r}…"


def read_generation_ids(reply: Any) -> tuple[str, ...]:
    """The ids of an accepted enqueue, in order; raises UnexpectedReply where a 2xx names none."""
    generations = reply.get("generations") if isinstance(reply, Mapping) else None
    ids = tuple(
        entry["generation_id"]
        for entry in (generations if isinstance(generations, list) else [])
        if isinstance(entry, Mapping) and _is_id(entry.get("generation_id"))
    )
    if not ids or (isinstance(reply, Mapping) and reply.get("error")):
        said = error_text(reply)
        error = UnexpectedReply(
            "The service accepted the request and named no generation" + (f": {said}" if said else ".")
        )
        error.definite = not ids and has_own_error(reply)
        raise error
    return ids


def read_edit(reply: Any) -> tuple[EditImage, ...]:
    """The pictures of a synchronous edit, in order; raises UnexpectedReply where there are none.

    `images[].b64_json`, `images[].url`, `image_url` and `url` all occur, whatever was asked for.
    """
    pictures: tuple[EditImage, ...] = ()
    if isinstance(reply, Mapping):
        entries = reply.get("images")
        candidates = [e for e in entries if isinstance(e, Mapping)] if isinstance(entries, list) else []
        candidates.append({"url": reply.get("image_url") or reply.get("url")})
        pictures = tuple(picture for entry in candidates if (picture := _edit_image(entry)) is not None)
        if pictures and not reply.get("error"):
            return pictures
    said = error_text(reply)
    error = UnexpectedReply("The service answered without a picture" + (f": {said}" if said else "."))
    error.definite = not pictures and has_own_error(reply)
    raise error


def _edit_image(entry: Mapping[str, Any]) -> EditImage | None:
    encoded, url = entry.get("b64_json"), entry.get("url")
    if isinstance(encoded, str) and encoded:
        try:
            return EditImage(data=_decoded(encoded))
        except ValueError:
            if not isinstance(url, str) or not url:
                error = UnexpectedReply("The service sent a picture that is not base64.")
                error.picture = encoded.encode()
                raise error from None
    if isinstance(url, str) and (data := inline(url)) is not None:
        return EditImage(data=data)
    return EditImage(url=url) if isinstance(url, str) and url else None


def inline(url: str) -> bytes | None:
    """The picture that an address holds itself, as a data URI does; None for any other."""
    head = url[:100].lstrip().partition(",")[0].lower()
    if not (head.startswith("data:") and head.endswith(";base64")):
        return None
    try:
        return _decoded(url)
    except ValueError:
        return None


def _decoded(encoded: str) -> bytes:
    """The bytes of a paid picture, in whatever form base64 comes: as a data URI, wrapped, unpadded or URL-safe."""
    text = encoded.partition(",")[2] if encoded[:100].lstrip().lower().startswith("data:") else encoded
    plain = "".join(text.split()).rstrip("=").translate({ord("-"): "+", ord("_"): "/"})
    return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)


def read_row(reply: Any, generation_id: str | None = None) -> Row:
    """One queue or history row; raises UnexpectedReply for anything else, UnknownStatus for an undocumented status.

    generation_id: the id that was asked for; the row of another one is refused.
    """
    row = _any_row(reply)
    if not row.generation_id:
        raise UnexpectedReply("The service answered with something that is no generation.")
    if generation_id is not None and row.generation_id.lower() != generation_id.lower():
        raise UnexpectedReply(
            f"The service was asked for generation {generation_id} and answered with another, {row.generation_id}."
        )
    if row.status is JobStatus.UNKNOWN:
        raise UnknownStatus(f"Generation {row.generation_id} has the unknown status {str(reply.get('status'))[:40]!r}.")
    return row


def _any_row(reply: Any) -> Row:
    """A row of any status; its id is empty where it has none that can be used."""
    if not isinstance(reply, Mapping):
        return Row("", JobStatus.UNKNOWN)
    return Row(
        generation_id=reply["generation_id"] if _is_id(reply.get("generation_id")) else "",
        status=_status(reply.get("status")),
        model=_text(reply.get("model_name")) or _text(reply.get("model")) or "",
        enqueued_at=_moment(reply.get("enqueued_at")) or 0,
        started_at=_moment(reply.get("started_at")),
        completed_at=_moment(reply.get("completed_at")),
        result_url=_text(reply.get("result_url")),
        error_message=(_text(reply.get("error_message")) or "")[:_SHOWN] or None,
        cost=read_amount(reply.get("cost")),
        parameters={key: value for key, value in reply.items() if key not in _ROW_FIELDS},
    )


def _status(value: Any) -> JobStatus:
    try:
        return JobStatus(value.strip().lower() if isinstance(value, str) else value)
    except ValueError:
        return JobStatus.UNKNOWN


_ROW_FIELDS = frozenset(
    [
        "generation_id",
        "status",
        "model_name",
        "model",
        "media_type",
        "enqueued_at",
        "started_at",
        "completed_at",
        "result_url",
        "error_message",
        "error_retryable",
        "cost",
        "user_id",
        "username",
        "user_image",
    ]
)


def read_rows(reply: Any) -> Listed:
    """The rows of a list, so that an odd one hides no other; raises UnexpectedReply for no list."""
    generations = reply.get("generations") if isinstance(reply, Mapping) else None
    if not isinstance(generations, list):
        raise UnexpectedReply("The service answered without a list of generations.")
    rows = tuple(_any_row(entry) for entry in generations)
    return Listed(
        tuple(row for row in rows if row.generation_id),
        tuple(row for row in rows if not row.generation_id),
    )


def read_history(reply: Any) -> History:
    """One page of the history."""
    listed = read_rows(reply)
    return History(
        rows=listed.rows,
        page=_whole(reply.get("page_number")) or 1,
        pages=_whole(reply.get("total_pages")),
        entries=_whole(reply.get("total_entries")),
        total_cost=read_amount(reply.get("total_cost")),
        strange=listed.strange,
    )


def read_history_row(reply: Any, generation_id: str | None = None) -> Row:
    """The history's detail, which is wrapped in `generation`; as `read_row`."""
    return read_row(reply.get("generation") if isinstance(reply, Mapping) else None, generation_id)


def read_model(reply: Any) -> Model:
    """A model object under either of its two schema names; raises UnexpectedReply for anything else."""
    if not isinstance(reply, Mapping) or not isinstance(reply.get("id"), str):
        raise UnexpectedReply("The service answered with something that is no model.")
    pricing = reply.get("pricing")
    prices: Mapping[str, Any] = pricing if isinstance(pricing, Mapping) else {}
    schema = reply.get("request_schema") or reply.get("json_request_schema")
    return Model(
        id=reply["id"],
        name=_text(reply.get("display_name")) or reply["id"],
        description=_text(reply.get("description")) or _text(reply.get("summary")) or "",
        price=read_price(pricing),
        pricing_method=_text(prices.get("method")),
        schema=schema if isinstance(schema, Mapping) else None,
    )


def read_event(data: str) -> JobEvent | None:
    """A completion event's payload; None for one that cannot be used, which polling makes good."""
    try:
        payload = parse_json(data.encode())
        if not isinstance(payload, Mapping) or not _is_id(payload.get("generation_id")):
            return None
    except (UnexpectedReply, ValueError):
        return None
    status = _status(payload.get("status"))
    if status is JobStatus.UNKNOWN:
        return None
    return JobEvent(payload["generation_id"], status, _text(payload.get("url")), _text(payload.get("error")))


def _is_id(value: Any) -> bool:
    return isinstance(value, str) and is_generation_id(value)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _whole(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1 << 63:
        return None
    return int(value)


def _moment(value: Any) -> int | None:
    """Unix seconds from seconds, milliseconds or ISO 8601, each also as text; without a zone it is UTC."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return _iso(value)
    seconds = _whole(value)
    return seconds // 1000 if seconds is not None and abs(seconds) > _MOST_SECONDS else seconds


def _iso(text: str) -> int | None:
    # Python 3.10 reads neither Z nor fractions of any length
    plain = re.sub(r"[.,]\d+", "", text.strip()).replace("Z", "+00:00").replace("z", "+00:00")
    try:
        moment = datetime.fromisoformat(plain)
        return int((moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp())
    except (ValueError, OverflowError):
        return None
