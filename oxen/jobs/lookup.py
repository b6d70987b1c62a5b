"""Finding a job whose answer was lost, so that it is never paid a second time.

What the lists show of a request is not documented: its picture may come back whole, shortened, as an address or not
at all, numbers as text, times in any form. So nothing that is paid hangs on a field's form: a row is taken where it
is certainly the request's own; it is passed over where it certainly is another's; and whatever lies between is doubt,
of which the artist is told.
"""

from __future__ import annotations

import base64
import html
import logging
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cached_property
from typing import Any
from urllib.parse import unquote

from ..api.client import Client
from ..api.replies import Row
from ..errors import OxenError, UnexpectedReply
from .ledger import Ledger
from .record import Record, State, text_digest

logger = logging.getLogger(__name__)

# A row may echo its whole picture as a data URI, and a page of them has to stay within what an answer may be.
_PAGE_SIZE = 10
_MAX_PAGES = 100
# How much older than the request a row has to be before the search goes back no further: a day, a zone and an hour.
_OLDER_SECONDS = 26 * 3600.0
# Within this time of a row nobody else may have worked on the account, if a row without its picture is to be believed.
_ALONE_SECONDS = 3600.0
# How much earlier and later than its request, by the service's clock, such a row may be: clocks differ a little, and
# a large picture may take its time to get there.
_EARLIER_SECONDS = 120.0
_LATER_SECONDS = 900.0
# What the ledger can hold of a number.
_MOST_SEEDS = 2**63
_NUMBER_TOLERANCE = 1e-3
# What a number may lose on its way through 32 bits.
_ROUNDING = 1e-6
# Texts with this part of their words in common may be one text in two forms.
_ALIKE = 0.5
# What may stand around a prompt; more is not looked at.
_AROUND = 10_000
_PNG_END = b"IEND\xaeB`\x82"


@dataclass(frozen=True)
class Found:
    """The request became this job."""

    row: Row


@dataclass(frozen=True)
class Perhaps:
    """It cannot be told whether the request became a job. ids: the jobs that it may have become."""

    why: str
    ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Nothing:
    """The lists are whole, and none of their jobs can be the request's."""


Answer = Found | Perhaps | Nothing


def look_up(client: Client, ledger: Ledger, record: Record) -> Answer:
    """What became of a request, as the queue and the history tell it. Raises what the requests raise."""
    search = _Search(client, ledger, record)
    search.run()
    return search.answer()


class _Match(Enum):
    OURS = "ours"
    MAYBE = "maybe"
    OTHER = "other"


@dataclass
class _Search:
    """One look through the lists. rows: by id; gaps: why the lists may have shown less than there is."""

    client: Client
    ledger: Ledger
    record: Record
    rows: dict[str, Row] = field(default_factory=dict)
    strange: list[Row] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)

    def run(self) -> None:
        self._read_queue()
        self._read_history()

    def answer(self) -> Answer:
        owners = self.ledger.owners(list(self.rows))
        faithful = any(_shows(row, owners[one].input_digest) for one, row in self.rows.items() if one in owners)
        free = [row for one, row in self.rows.items() if one not in owners]
        matches = {row.generation_id: self._match(row, faithful=faithful) for row in free}
        ours = [row for row in free if matches[row.generation_id] is _Match.OURS]
        contested = [row for row in ours if self._is_anothers(row)]
        contested += [row for row in ours if row not in contested and self._is_an_earlier_ones(row)]
        if clear := [row for row in ours if row not in contested]:
            return Found(min(clear, key=self._apart))
        maybe = [row for row in free if matches[row.generation_id] is _Match.MAYBE and not self._is_anothers(row)]
        maybe += contested
        if len(maybe) == 1 and self._can_only_be(maybe[0], free):
            return Found(maybe[0])
        if maybe:
            why = "lists a job that may be this one, and does not show whether it is"
            return Perhaps(why, tuple(row.generation_id for row in maybe))
        if any(self._match(row, faithful=faithful) is not _Match.OTHER for row in self.strange):
            return Perhaps("lists a job without an id that may be this one")
        return Perhaps(self.gaps[0]) if self.gaps else Nothing()

    def _read_queue(self) -> None:
        try:
            listed = self.client.active(model=self._model, namespace=self._namespace)
        except UnexpectedReply as error:
            # It comes in one piece, which many large pictures make too large; the history has its rows, too, by pages.
            logger.info("The queue cannot be read, so the history alone is searched: %s", error)
            self.gaps.append("its queue cannot be read")
            return
        self._take(listed.rows, listed.strange)

    def _read_history(self) -> None:
        """Page by page, until there are no more or all that follow are older than the request."""
        seen: set[str] = set()
        times: list[int] = []
        entries: int | None = None
        for page in range(1, _MAX_PAGES + 1):
            try:
                history = self.client.history(
                    page=page, page_size=_PAGE_SIZE, model=self._model, namespace=self._namespace
                )
            except UnexpectedReply as error:
                logger.info("The history cannot be read: %s", error)
                self.gaps.append("its list of past jobs cannot be read")
                return
            except OxenError as error:
                if page > 1 and error.status in {400, 404, 422}:
                    break  # there is no such page
                raise
            new = {row.generation_id for row in history.rows} - seen
            if not history.rows and not history.strange:
                break
            if not new and not history.strange:
                if len(history.rows) >= _PAGE_SIZE:
                    self.gaps.append("its list of past jobs shows one page again and again")
                break
            seen |= new
            times += [row.enqueued_at for row in history.rows]
            entries = history.entries if entries is None else entries
            self._take(history.rows, history.strange)
            if self._goes_no_further(history.rows, times):
                return
        else:
            self.gaps.append(f"its list of past jobs was read for {_MAX_PAGES} pages and goes on")
            return
        if entries is not None and len(seen) < entries:
            self.gaps.append(f"its list of past jobs shows {len(seen)} of {entries}")

    def _take(self, rows: Iterable[Row], strange: Iterable[Row]) -> None:
        for row in rows:
            # of two showings of one job the fuller is kept
            shown = self.rows.get(row.generation_id)
            if shown is None or len(row.parameters) > len(shown.parameters):
                self.rows[row.generation_id] = row
        self.strange.extend(strange)

    def _goes_no_further(self, page: tuple[Row, ...], times: list[int]) -> bool:
        """Whether all that follows a page is older than the request, in a list that is sorted by time."""
        if len(times) < _PAGE_SIZE or not all(times) or times != sorted(times, reverse=True):
            return False
        last = page[-1].enqueued_at if page else 0
        offset = self.record.clock_offset
        # two clocks that agree are to be believed; one alone may be years off
        if offset is not None and abs(offset) < _OLDER_SECONDS and last < self._sent_at() - _OLDER_SECONDS:
            return True
        owners = self.ledger.owners([row.generation_id for row in page])
        return any(
            _is_older(owners[row.generation_id], self.record) and row.enqueued_at > last
            for row in page
            if row.generation_id in owners
        )

    @cached_property
    def _unnamed(self) -> tuple[Record, ...]:
        return self.ledger.unnamed(self.record.seed)

    @cached_property
    def _others(self) -> list[Record]:
        """Other requests of the same seed that no id is known of, so that a job which nobody owns may be theirs."""
        return [one for one in self._unnamed if one.key != self.record.key]

    def _is_anothers(self, row: Row) -> bool:
        """Whether a row shows all that it shows as another request has it."""
        return any(replace(self, record=one)._match(row, faithful=False) is _Match.OURS for one in self._others)

    def _is_an_earlier_ones(self, row: Row) -> bool:
        """Whether a row is nearer in time to the same edit made once before, of whose job no id is known."""
        mine = (one for one in self._unnamed if one.key == self.record.key)
        before = [one for one in mine if one.state in (State.DONE, State.GONE)]
        return any(
            replace(self, record=one)._apart(row) < self._apart(row) for one in before if one.id != self.record.id
        )

    def _apart(self, row: Row) -> float:
        """Seconds between the request and a row."""
        return abs(row.enqueued_at - self._sent_at())

    def _match(self, row: Row, *, faithful: bool) -> _Match:
        """faithful: whether this service is known to show pictures as they were sent."""
        sent, shown = self.record.parameters, row.parameters
        prompt = _text_match(shown.get("prompt"), str(sent.get("prompt", "")))
        seed = _number_match(shown.get("seed"), sent.get("seed"))
        picture = self._picture_match(shown.get("input_image"), faithful=faithful)
        if seed is _Match.OTHER and sent.get("seed") == 0 and not self._is_ours(shown["seed"]):
            seed = _Match.MAYBE  # many take 0 for a seed that they choose, and show what they chose
        if _Match.OTHER in (prompt, seed, picture):
            return _Match.OTHER
        rest = [_value_match(shown[name], value) for name, value in sent.items() if name in shown]
        if row.model:  # which a list that was asked for one model may not have looked at
            rest.append(_value_match(row.model, self._model))
        certain = prompt is seed is picture is _Match.OURS and all(match is _Match.OURS for match in rest)
        return _Match.OURS if certain else _Match.MAYBE

    def _is_ours(self, seed: Any) -> bool:
        """Whether some other request of this machine with no id known has a seed."""
        number = float(seed)
        return number.is_integer() and 0 <= number < _MOST_SEEDS and bool(self.ledger.unnamed(int(number)))

    def _picture_match(self, shown: Any, *, faithful: bool) -> _Match:
        if not isinstance(shown, str) or not shown:
            return _Match.MAYBE
        digest = text_digest(shown)
        if digest == self.record.input_digest:
            return _Match.OURS
        # shown as it was sent, and it is the picture of another request; what is cut, or an address, may be stored so
        another = (faithful and _is_whole(shown)) or self.ledger.has_sent(digest)
        return _Match.OTHER if another else _Match.MAYBE

    def _can_only_be(self, row: Row, free: list[Row]) -> bool:
        """Whether a row that shows no picture is this request's for want of anybody else's.

        All else that it shows agrees, it is of the request's time, no other request of this machine that is known by
        no id was alike but for the picture, and nobody else worked on the account about that time.
        """
        shown, sent = row.parameters, self.record.parameters
        if shown.get("input_image") is not None or not row.enqueued_at:
            return False
        if not -_EARLIER_SECONDS <= row.enqueued_at - self._sent_at() <= _LATER_SECONDS:
            return False
        if any(name in shown and _value_match(shown[name], value) is not _Match.OURS for name, value in sent.items()):
            return False
        if row.model and _value_match(row.model, self._model) is not _Match.OURS:
            return False
        if any(name not in shown for name in ("prompt", "seed") if sent.get(name) is not None):
            return False
        if any(one.parameters.get("prompt") == sent.get("prompt") for one in self._others):
            return False
        return not self.gaps and all(
            other is row or (other.enqueued_at and abs(other.enqueued_at - row.enqueued_at) > _ALONE_SECONDS)
            for other in free
        )

    def _sent_at(self) -> float:
        """When the request was sent, by the service's clock as far as it was known then."""
        return self.record.created_at + (self.record.clock_offset or 0.0)

    @property
    def _model(self) -> str:
        return str(self.record.parameters["model"])

    @property
    def _namespace(self) -> str | None:
        return self.record.parameters.get("target_namespace")


def _shows(row: Row, input_digest: str) -> bool:
    shown = row.parameters.get("input_image")
    return isinstance(shown, str) and text_digest(shown) == input_digest


def _value_match(shown: Any, sent: Any) -> _Match:
    """Whether an echoed parameter is the one that was sent. A different one is doubt: the service may adjust it."""
    if isinstance(sent, bool):
        same = shown is sent or str(shown).strip().lower() == str(sent).lower()
        return _Match.OURS if same else _Match.MAYBE
    match = _number_match(shown, sent) if isinstance(sent, int | float) else _text_match(shown, str(sent))
    return _Match.OURS if match is _Match.OURS else _Match.MAYBE


def _number_match(shown: Any, sent: Any) -> _Match:
    if isinstance(shown, bool) or not isinstance(shown, int | float | str):
        return _Match.MAYBE
    try:
        difference = abs(float(shown) - float(sent))
    except (TypeError, ValueError, OverflowError):
        return _Match.MAYBE
    if difference <= _NUMBER_TOLERANCE:
        return _Match.OURS
    return _Match.OTHER if difference > _ROUNDING * abs(float(sent)) else _Match.MAYBE


def _text_match(shown: Any, sent: str) -> _Match:
    if not isinstance(shown, str) or not shown.strip():
        return _Match.MAYBE
    shown = shown[: 4 * len(sent) + _AROUND]
    if _spaced(unicodedata.normalize("NFC", shown)) == _spaced(unicodedata.normalize("NFC", sent)):
        return _Match.OURS
    one, other = _words(shown), _words(sent)
    run, other_run = "".join(one), "".join(other)
    if run in other_run or other_run in run:  # cut, wrapped, or with other signs between
        return _Match.MAYBE
    common = (Counter(one) & Counter(other)).total()
    return _Match.MAYBE if common >= _ALIKE * max(len(one), len(other)) else _Match.OTHER


def _spaced(text: str) -> str:
    """A text without control characters, and with single spaces."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _words(text: str) -> list[str]:
    """A text as far as its meaning goes: its words without accents, case, signs, and what markup does to them."""
    plain = unicodedata.normalize("NFKD", html.unescape(unquote(text))).casefold()
    joined = "".join(c for c in plain if not unicodedata.combining(c) and unicodedata.category(c) != "Cf")
    return "".join(c if c.isalnum() else " " for c in joined).split()


def _is_whole(image: str) -> bool:
    """Whether an echo is a data URI of a PNG with its end, as pictures are sent, and so not cut or stored elsewhere."""
    head, _, encoded = image.partition(",")
    if not head.startswith("data:") or not head.endswith(";base64") or len(encoded) % 4:
        return False
    try:
        return base64.b64decode(encoded[-24:], validate=True).endswith(_PNG_END)
    except ValueError:
        return False


def _is_older(one: Record, other: Record) -> bool:
    """Whether one request's job was known before the other request was opened, whatever the clocks say."""
    return one.taken is not None and other.opened is not None and one.taken < other.opened
