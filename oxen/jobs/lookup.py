"""Finding a job whose answer was lost, so that it is never paid a second time.

What the lists show of a request is not documented: its picture may come back whole, shortened, as an address or not
at all, its prompt translated, another seed than was sent, the model by another name, times in any form. So nothing
that is paid hangs on one field: a row is taken where it is certainly the request's own; it is passed over where it
certainly is another's; and whatever lies between is doubt, of which the artist is told.

Certainly another's is a row whose id, or whose very picture, this ledger knows of another request; one that shows all
that another lost request has; and one against which two things speak that have nothing to do with each other (of
prompt, seed, picture, model and time): a service may alter one, and what it is known to alter does not count.
"""

from __future__ import annotations

import base64
import html
import logging
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from functools import cached_property
from typing import Any
from urllib.parse import unquote

from ..api.client import Client
from ..api.replies import Row
from ..errors import Interrupted, OxenError, UnexpectedReply
from ..secrets import PICTURE_FIELDS
from .ledger import Ledger
from .record import Record, State, sent_digest, text_digest

logger = logging.getLogger(__name__)

# A row may echo its whole picture as a data URI, and a page of them has to stay within what an answer may be.
_PAGE_SIZE = 10
_MAX_PAGES = 100
# How far in time a row has to be from the request to be of another: a day, a zone and an hour.
_OLDER_SECONDS = 26 * 3600.0
# No job of the model's is older, so that a smaller number is no time of one (2025-01-01).
_FIRST_TIME = 1_735_689_600
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
_UUID = re.compile(r"[0-9a-fA-F-]{32,36}")
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


def asked(client: Client, ledger: Ledger, record: Record) -> Answer | OxenError:
    """What became of a request, or why the lists could not be asked."""
    try:
        return look_up(client, ledger, record)
    except Interrupted:
        raise
    except OxenError as error:
        return error


class _Match(IntEnum):
    """Whether something is the request's own; UNLIKELY is a row against which one thing speaks."""

    OURS = 0
    MAYBE = 1
    UNLIKELY = 2
    OTHER = 3


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
        """Read the lists, as the model and the namespace that were sent filter them.

        What they show under a name of their own is hidden by that filter: without a row of just this model, the lists
        are read without it, too.
        """
        filters = [(self._model, self._namespace), (None, self._namespace), (None, None)]
        for model, namespace in dict.fromkeys(filters):
            self._read_queue(model, namespace)
            self._read_history(model, namespace)
            if any(row.model == self._model for row in self.rows.values()):
                return

    def answer(self) -> Answer:
        free = [row for one, row in self.rows.items() if one not in self._owners]
        matches = {row.generation_id: self._match(row) for row in free}
        ours = [row for row in free if matches[row.generation_id] is _Match.OURS]
        contested = [row for row in ours if self._is_anothers(row)]
        contested += [row for row in ours if row not in contested and self._is_an_earlier_ones(row)]
        if clear := [row for row in ours if row not in contested]:
            return Found(min(clear, key=self._apart))
        open_ones = [row for row in free if matches[row.generation_id] in (_Match.MAYBE, _Match.UNLIKELY)]
        open_ones = sorted((row for row in open_ones if not self._is_anothers(row)), key=self._apart)
        maybe = [row for row in open_ones if matches[row.generation_id] is _Match.MAYBE] + contested
        if len(maybe) == 1 and self._can_only_be(maybe[0], free):
            return Found(maybe[0])
        if maybe or open_ones:
            why = "lists a job that may be this one, and does not show whether it is"
            unlikely = [row for row in open_ones if row not in maybe]
            return Perhaps(why, tuple(row.generation_id for row in maybe + unlikely))
        if any(self._match(row) is not _Match.OTHER and not self._is_anothers(row) for row in self.strange):
            return Perhaps("lists a job without an id that may be this one")
        return Perhaps(f"cannot tell, as {self.gaps[0]}") if self.gaps else Nothing()

    def _read_queue(self, model: str | None, namespace: str | None) -> None:
        try:
            listed = self.client.active(model=model, namespace=namespace)
        except UnexpectedReply as error:
            # It comes in one piece, which many large pictures make too large; the history has its rows, too, by pages.
            logger.info("The queue cannot be read, so the history alone is searched: %s", error)
            self.gaps.append("its queue cannot be read")
            return
        self._take(listed.rows, listed.strange)

    def _read_history(self, model: str | None, namespace: str | None) -> None:
        """Page by page, until there are no more or all that follow are older than the request."""
        seen: set[str] = set()
        times: list[int] = []
        entries: int | None = None
        pages = 0
        for page in range(1, _MAX_PAGES + 1):
            try:
                history = self.client.history(page=page, page_size=_PAGE_SIZE, model=model, namespace=namespace)
            except UnexpectedReply as error:
                logger.info("The history cannot be read: %s", error)
                self.gaps.append("its list of past jobs cannot be read")
                return
            except OxenError as error:
                if page > 1 and error.status in {400, 404, 422}:
                    if not error.definite:  # a gateway's word
                        self.gaps.append("its list of past jobs cannot be read to its end")
                    break  # there is no such page
                raise
            new = {row.generation_id for row in history.rows} - seen
            pages = max(pages, history.pages or 0)
            if not history.rows and not history.strange:
                break
            entries = history.entries if entries is None else entries
            if not new and not history.strange:
                # the last page again where there are no more, if the service says so
                told = history.pages is not None and history.pages < page and entries is not None
                if not told:
                    self.gaps.append("its list of past jobs shows one page again and again")
                break
            seen |= new
            times += [row.enqueued_at for row in history.rows]
            self._take(history.rows, history.strange)
            if self._goes_no_further(history.rows, times):
                return
        else:
            self.gaps.append(f"its list of past jobs was read for {_MAX_PAGES} pages and goes on")
            return
        if entries is not None and len(seen) < entries:
            self.gaps.append(f"its list of past jobs shows {len(seen)} of {entries}")
        elif entries is None and pages >= max(page, 2):
            self.gaps.append(f"its list of past jobs is said to have {pages} pages and shows {page - 1}")

    def _take(self, rows: Iterable[Row], strange: Iterable[Row]) -> None:
        for row in rows:
            # of two showings of one job the fuller is kept
            shown = self.rows.get(row.generation_id)
            if shown is None or len(row.parameters) > len(shown.parameters):
                self.rows[row.generation_id] = row
        self.strange.extend(strange)

    def _goes_no_further(self, page: tuple[Row, ...], times: list[int]) -> bool:
        """Whether all that follows a page is older than the request, in a list that is sorted by time."""
        if len(times) < _PAGE_SIZE or min(times) < _FIRST_TIME or times != sorted(times, reverse=True):
            return False
        last = page[-1].enqueued_at if page else 0
        offset = self.record.clock_offset
        # two clocks that agree are to be believed; one alone may be years off
        if offset is not None and abs(offset) < _OLDER_SECONDS and last < self._sent_at() - _OLDER_SECONDS:
            return True
        owners = self.ledger.owners([row.generation_id for row in page])
        return any(
            # the service has more than one clock
            _is_older(owners[row.generation_id], self.record) and row.enqueued_at > last + _EARLIER_SECONDS
            for row in page
            if row.generation_id in owners
        )

    @cached_property
    def _owners(self) -> Mapping[str, Record]:
        """The requests of this machine whose jobs the lists show, by the ids of these."""
        return self.ledger.owners(list(self.rows))

    @cached_property
    def _unnamed(self) -> tuple[Record, ...]:
        return self.ledger.unnamed(self.record.seed)

    @cached_property
    def _others(self) -> list[Record]:
        """Other requests of the same seed that no id is known of, so that a job which nobody owns may be theirs."""
        return [one for one in self._unnamed if one.key != self.record.key]

    def _is_anothers(self, row: Row) -> bool:
        """Whether a row shows all that it shows as another request of this machine has it.

        That is one that no id is known of; for a row which has none itself, any.
        """
        seed = _seed_of(row)
        if seed is None and self.record.seed is not None:
            return False
        requests = self.ledger.unnamed(seed) if row.generation_id else self.ledger.of_seed(seed)
        return any(one.key != self.record.key and _is_exactly(one, row) for one in requests)

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

    def _match(self, row: Row) -> _Match:
        if _is_exactly(self.record, row):
            return _Match.OURS
        if self._has_the_picture_of_another(row):
            return _Match.OTHER
        against = sum(name not in self._altered for name in _differing(self.record, row))
        against += self._is_another_picture(row) + self._is_of_another_time(row)
        return _Match(min(_Match.MAYBE + against, _Match.OTHER))

    @cached_property
    def _altered(self) -> frozenset[str]:
        """What this service is known to show otherwise than it was sent: what differs there says nothing."""
        rows = ((self.rows[one], owner) for one, owner in self._owners.items())
        return frozenset(name for row, owner in rows for name in _differing(owner, row))

    @cached_property
    def _shows_pictures(self) -> bool:
        """Whether this service is known to show pictures as they were sent, and none otherwise."""
        shown = [_picture_match(owner, self.rows[one]) for one, owner in self._owners.items()]
        return _Match.OURS in shown and _Match.OTHER not in shown

    def _has_the_picture_of_another(self, row: Row) -> bool:
        """Whether a row shows, byte for byte, the picture of another request of this machine."""
        shown = _pictures(row)
        # addresses may be rewritten, and are cut like pictures
        if not shown or not all(map(_is_whole, shown)):
            return False
        digest = sent_digest(shown)
        return digest != self.record.input_digest and self.ledger.has_sent(digest)

    def _is_another_picture(self, row: Row) -> bool:
        return self._shows_pictures and _picture_match(self.record, row) is _Match.OTHER

    def _is_of_another_time(self, row: Row) -> bool:
        """Whether a row is far in time from the request, or older than a job that was known before it was opened."""
        if row.enqueued_at < _FIRST_TIME:
            return False
        offset = self.record.clock_offset
        # two clocks that agree are to be believed; one alone may be years off
        if offset is not None and abs(offset) < _OLDER_SECONDS and self._apart(row) > _OLDER_SECONDS:
            return True
        return row.enqueued_at < self._known_before

    @cached_property
    def _known_before(self) -> int:
        """When the newest job was enqueued that was known before the request was opened; 0 where there is none."""
        before = (one for one, owner in self._owners.items() if _is_older(owner, self.record))
        return max((self.rows[one].enqueued_at for one in before), default=0)

    def _can_only_be(self, row: Row, free: list[Row]) -> bool:
        """Whether a row that shows no picture is this request's for want of anybody else's.

        All else that it shows agrees, it is of the request's time, no other request of this machine that is known by
        no id was alike but for the picture, and nobody else worked on the account about that time.
        """
        shown, sent = row.parameters, self.record.parameters
        if _pictures(row) or not row.enqueued_at:
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
        return self.record.sent_at + (self.record.clock_offset or 0.0)

    @property
    def _model(self) -> str:
        return str(self.record.parameters["model"])

    @property
    def _namespace(self) -> str | None:
        return self.record.parameters.get("target_namespace")


def _seed_of(row: Row) -> int | None:
    try:
        number = float(row.parameters.get("seed", ""))
    except (TypeError, ValueError, OverflowError):
        return None
    return int(number) if number.is_integer() and 0 <= number < _MOST_SEEDS else None


def _is_exactly(record: Record, row: Row) -> bool:
    """Whether a row shows the pictures of a request, its prompt and seed where it has them, and nothing otherwise."""
    sent, shown = record.parameters, row.parameters
    if _picture_match(record, row) is not _Match.OURS:
        return False
    if "prompt" in sent and _text_match(shown.get("prompt"), str(sent["prompt"])) is not _Match.OURS:
        return False
    if "seed" in sent and _number_match(shown.get("seed"), sent["seed"]) is not _Match.OURS:
        return False
    if row.model and _value_match(row.model, sent.get("model")) is not _Match.OURS:
        return False
    return all(_value_match(shown[name], value) is _Match.OURS for name, value in sent.items() if name in shown)


def _differing(record: Record, row: Row) -> set[str]:
    """What a row shows that says of itself that it is not the request's: of prompt, seed and model."""
    sent, shown = record.parameters, row.parameters
    matches = {
        "prompt": _text_match(shown.get("prompt"), str(sent.get("prompt", ""))),
        # many take 0 for a seed that they choose, and show what they chose
        "seed": _number_match(shown.get("seed"), sent.get("seed")) if sent.get("seed") else _Match.MAYBE,
        "model": _name_match(row.model, str(sent.get("model", ""))),
    }
    return {name for name, match in matches.items() if match is _Match.OTHER}


def _picture_match(record: Record, row: Row) -> _Match:
    """OTHER is what was a picture in the request; what is cut, or an address, may be stored so."""
    shown = _pictures(row)
    if not shown:
        return _Match.MAYBE
    if sent_digest(shown) == record.input_digest:
        return _Match.OURS
    sent = record.input_digest.split(",")
    other = any(_is_whole(one) and text_digest(one) not in sent for one in shown)
    return _Match.OTHER if other else _Match.MAYBE


def _pictures(row: Row) -> list[str]:
    """What a row shows of the pictures of its request, in the order in which they are sent, a mask last."""
    return [one for name in PICTURE_FIELDS for one in _texts(row.parameters.get(name))]


def _texts(value: Any) -> Iterator[str]:
    """The texts in a JSON value, whether it is one or holds them in lists and objects."""
    if isinstance(value, str) and value:
        yield value
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _texts(one)


def _name_match(shown: str, sent: str) -> _Match:
    """Whether two names may be one model's: with its maker, in another case, as a title, or by an id."""
    one, other = set(_words(shown)), set(_words(sent))
    return _Match.MAYBE if not one or not other or one & other or _UUID.fullmatch(shown) else _Match.OTHER


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
