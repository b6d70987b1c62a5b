"""The ways in which the stand-in can misbehave: one switch each, described where it is declared.

A switch is off (False or None), on (True), on with a value, or a `Fault` that says how often and where.
"""

from __future__ import annotations

import math
import re
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, get_type_hints

Value = bool | int | float | str


@dataclass(frozen=True)
class Fault:
    """One switch turned on, limited in number or place.

    value: what the switch's own description says; True takes its default.
    times: how many uses misbehave before the switch has no more effect; None is always.
    after: how many uses go well first.
    match: only uses whose path or prompt contains this text.
    route: for switches on whole replies, the route (or "paid", "any") instead of the usual one; routes have the
    names of `app.routes`.
    """

    value: Value = True
    times: int | None = None
    after: int = 0
    match: str = ""
    route: str = ""

    def number(self, default: float) -> float:
        """The value as a number; `default` where the switch is simply on."""
        return default if self.value is True else float(self.value)

    def text(self, default: str) -> str:
        """The value as text; `default` where the switch is simply on."""
        return default if self.value is True else str(self.value)


Switch = Value | Fault | None
# Asks for a switch by name, where whom it concerns is settled: the fault if this use is to misbehave.
Trip = Callable[[str], Fault | None]


@dataclass(frozen=True)
class Faults:
    """All switches. "Paid" means POST /api/ai/images/edit and POST /api/ai/queue."""

    reset_before_body: Annotated[Switch, "paid: the connection is reset before the body is read; no job"] = False
    rate_limited: Annotated[
        Switch, "paid: 429; value N sends Retry-After: N, 'date:N' an HTTP date N s ahead, none without"
    ] = False
    out_of_credits: Annotated[Switch, "paid: 402 insufficient_credits; no job"] = False
    unauthorized: Annotated[Switch, "paid: 401 although the key is right; no job"] = False
    server_error: Annotated[Switch, "paid: 500 (or the value) with an HTML body; no job"] = False
    upstream_error: Annotated[Switch, "paid: 502 whose JSON has an integer `status`; no job"] = False
    error_text: Annotated[Switch, "paid: 400 whose `error` is plain text (the value); no job"] = False
    error_in_ok: Annotated[Switch, "paid: 200 with an `error` and nothing else; no job"] = False
    empty_generations: Annotated[Switch, "paid: 200 with an empty `generations` or `images`; no job"] = False
    html_reply: Annotated[Switch, "paid: 200 with HTML where JSON belongs; no job"] = False
    deep_json: Annotated[Switch, "paid: 200 with JSON nested 10,000 (or the value) deep; no job"] = False
    endless_reply: Annotated[Switch, "paid: 200 with a JSON string that never ends; no job"] = False
    never_answers: Annotated[Switch, "paid: the request is read and never answered; no job"] = False
    data_uri_refused: Annotated[Switch, "paid: 500 if input_image is a data URI; no job"] = False
    body_limit: Annotated[Switch, "paid: 413 for a body above the value in bytes (default 1,000,000); no job"] = False
    strict_fields: Annotated[Switch, "a field that the model's schema does not list is an error"] = False

    answer_dropped: Annotated[Switch, "paid: the job is accepted and billed, then the connection is reset"] = False
    answer_cut: Annotated[Switch, "paid: accepted and billed, then half the answer and a reset"] = False
    answer_hangs: Annotated[Switch, "paid: accepted and billed, then half the answer and nothing more"] = False
    answer_error: Annotated[Switch, "paid: accepted and billed, then 504 (or the value) with an HTML body"] = False
    answer_html: Annotated[Switch, "paid: accepted and billed, then 200 with HTML where JSON belongs"] = False
    answer_never: Annotated[Switch, "paid: accepted and billed, never answered"] = False
    answer_delayed: Annotated[Switch, "paid: accepted and billed, the answer comes 1 s (or the value) late"] = False
    answer_status: Annotated[
        Switch, "paid: accepted and billed, then a gateway's 409 (or the value; 'N json' says it in JSON)"
    ] = False
    answer_bad_header: Annotated[
        Switch, "paid: accepted and billed, then an answer with 'Content-Length: 1, 78' (or the value)"
    ] = False
    answer_interim: Annotated[Switch, "any route: 102 and 103 (or the value alone) come before the answer"] = False

    poll_unauthorized: Annotated[Switch, "row: 401 (with after=N: once N polls went well)"] = False
    poll_missing: Annotated[Switch, "row: 404 for an id that lives"] = False
    poll_error: Annotated[Switch, "row: 500 (or the value) with an HTML body"] = False
    poll_rate_limited: Annotated[Switch, "row: 429, value as for rate_limited"] = False
    poll_html: Annotated[Switch, "row: 200 with HTML where JSON belongs"] = False
    poll_deep_json: Annotated[Switch, "row: 200 with JSON nested 10,000 (or the value) deep"] = False
    poll_endless: Annotated[Switch, "row: 200 with a JSON string that never ends"] = False
    poll_reset: Annotated[Switch, "row: the connection is reset"] = False
    poll_never_answers: Annotated[Switch, "row: never answered"] = False
    poll_delayed: Annotated[Switch, "row: the answer comes 1 s (or the value) late"] = False
    poll_odd_status: Annotated[Switch, "row: a `status` of 'completed' (or the value), which no document lists"] = False
    row_late: Annotated[Switch, "row and history detail: 404 until 1 s (or the value) after the enqueue"] = False
    row_other_id: Annotated[Switch, "row: another job's, finished, whichever id was asked for"] = False
    status_case: Annotated[Switch, "rows: `status` as 'Succeeded' (value title), or 'SUCCEEDED' (value upper)"] = False
    status_starting: Annotated[Switch, "rows: `status` is 'starting' until 1 s (or the value) after the enqueue"] = (
        False
    )
    cost_odd: Annotated[Switch, "rows of the history: `cost` is '1e9999999' (or the value, as text)"] = False

    stuck: Annotated[Switch, "the job stays in processing"] = False
    stuck_queued: Annotated[Switch, "the job stays queued"] = False
    run_fails: Annotated[Switch, "the job fails with the value as its text"] = False
    run_moderated: Annotated[Switch, "the job fails with a moderation text"] = False
    run_out_of_credits: Annotated[Switch, "the job fails with 'Insufficient credits'"] = False
    no_result_url: Annotated[Switch, "the job succeeds and its row has no result_url"] = False

    cancel_loses: Annotated[Switch, "cancel: the job finishes first; 200, and the row says succeeded"] = False
    cancel_error: Annotated[Switch, "cancel: 500 (or the value) with an HTML body; the job goes on"] = False
    cancel_never_answers: Annotated[Switch, "cancel: never answered; the job goes on"] = False
    list_error: Annotated[Switch, "queue list, history and its details: 500 (or the value) with an HTML body"] = False
    list_lags: Annotated[Switch, "queue and history lists: without jobs younger than 1 s (or the value)"] = False
    list_input_image: Annotated[
        Switch, "lists and rows echo input_image as the value: url (default), cut, null, reencoded, absent"
    ] = False
    list_prompt: Annotated[
        Switch, "lists and rows echo the prompt as the value: trimmed (default), nfd, cut, upper, rewritten"
    ] = False
    list_numbers: Annotated[
        Switch, "lists and rows echo numbers as the value: guidance_text (default), guidance_near, seed_text, seed_own"
    ] = False
    list_model: Annotated[
        Switch, "lists and rows name the model 'black-forest-labs/{}' (or the value), and lists filter by that name"
    ] = False
    list_enqueued_at: Annotated[
        Switch, "lists and rows give enqueued_at as the value: null (default), text, iso, ms, naive"
    ] = False
    list_newer: Annotated[Switch, "history list: 15 (or the value) finished jobs of somebody else come first"] = False
    list_pages: Annotated[Switch, "history list: `total_pages` is null (or the value), whatever there is"] = False
    list_entries: Annotated[Switch, "history list: `total_entries` is null (or the value), whatever there is"] = False
    list_small_pages: Annotated[Switch, "history list: at most 5 rows a page (or the value), whatever is asked"] = False
    list_page_ignored: Annotated[Switch, "history list: every page is the first"] = False
    list_order: Annotated[Switch, "queue and history lists: oldest first, or (value shuffled) in no order"] = False
    list_null_id: Annotated[
        Switch, "queue and history lists: a row more, without a generation_id (value all: no row has one)"
    ] = False
    list_null: Annotated[Switch, "queue and history lists: `generations` is null"] = False
    date_off: Annotated[
        Switch, "any route: the Date header is 7200 s ahead (or the value; 'varies' is now ahead, now behind)"
    ] = False
    history_without_sync: Annotated[Switch, "edits made by the synchronous route are in no list"] = False

    events_unauthorized: Annotated[Switch, "event stream: 401"] = False
    events_error: Annotated[Switch, "event stream: 500 (or the value) with an HTML body"] = False
    events_html: Annotated[Switch, "event stream: 200 with HTML"] = False
    events_never_answers: Annotated[Switch, "event stream: not even headers"] = False
    events_silent: Annotated[Switch, "event stream: headers and then nothing, no keep-alive either"] = False
    events_cut: Annotated[Switch, "event stream: the connection is reset in the middle of an event"] = False
    events_closed: Annotated[Switch, "event stream: ends properly as soon as it was opened"] = False
    events_long_line: Annotated[Switch, "event stream: a line of 100 MB (or the value in MB) comes first"] = False
    events_foreign: Annotated[Switch, "event stream: other event names and comments around every event"] = False
    events_someone_else: Annotated[Switch, "event stream: an event for an unknown id before every event"] = False
    events_lost: Annotated[Switch, "event stream: the event of a job is not sent"] = False
    events_early: Annotated[Switch, "event stream: 'succeeded' while the row still says processing"] = False
    events_twice: Annotated[Switch, "event stream: every event comes twice"] = False
    events_crlf: Annotated[Switch, "event stream: CRLF line ends"] = False
    events_bytewise: Annotated[Switch, "event stream: one byte a write"] = False
    event_before_answer: Annotated[Switch, "enqueue: the job ends, event and all, before the answer leaves"] = False

    image_url_reply: Annotated[Switch, "sync: `image_url` at the top level instead of `images`"] = False
    url_though_b64: Annotated[Switch, "sync: a url although b64_json was asked for"] = False
    b64_though_url: Annotated[Switch, "sync: b64_json although a url was asked for"] = False
    b64_garbage: Annotated[Switch, "sync: a b64_json that is not base64"] = False

    result_wrong_type: Annotated[Switch, "result: Content-Type text/plain (or the value)"] = False
    result_truncated: Annotated[Switch, "result, b64_json too: the first half of the picture, as if it were whole"] = (
        False
    )
    result_cut: Annotated[Switch, "result: the connection is reset half-way"] = False
    result_empty: Annotated[Switch, "result, b64_json too: 200 without a byte of picture"] = False
    result_html: Annotated[Switch, "result: 200 with HTML instead of a picture"] = False
    result_expired: Annotated[Switch, "result: 403; the next reading of the row gives a fresh URL"] = False
    result_missing: Annotated[Switch, "result: 404"] = False
    result_needs_bearer: Annotated[Switch, "result: 401 (or the value) without the key"] = False
    result_redirects: Annotated[Switch, "result: 302 to another host that serves it (or to the value)"] = False
    result_redirect_loop: Annotated[Switch, "result: 302 to itself"] = False
    result_error: Annotated[Switch, "result: 503 (or the value) with an HTML body"] = False
    result_endless: Annotated[Switch, "result: a body that never ends"] = False
    result_hangs: Annotated[Switch, "result: headers, a few bytes, then nothing"] = False
    result_bomb: Annotated[Switch, "result, b64_json too: a PNG of a few kilobytes that says 60000 x 60000"] = False

    result_late: Annotated[Switch, "result: 404 until 1 s (or the value; '403:N' is 403) after the job's end"] = False
    result_gzip: Annotated[Switch, "result: Content-Encoding gzip, with the packed length"] = False
    result_aws_chunked: Annotated[Switch, "result: Content-Encoding aws-chunked (or the value) on plain bytes"] = False

    bomb: Annotated[
        Switch, "any route (paid, accepted and billed): gzipped JSON of tiny values, 190 MB (or the value) unpacked"
    ] = False
    redirect_body: Annotated[
        Switch, "any route (paid, accepted and billed): 302 with a Location and a body that never ends"
    ] = False
    trailers_endless: Annotated[
        Switch, "any route (paid, accepted and billed): the answer in chunks, then trailers that never end"
    ] = False
    headers_endless: Annotated[Switch, "any route (paid, accepted and billed): 200 with headers that never end"] = False
    interim_endless: Annotated[
        Switch, "any route (paid, accepted and billed): 102 (or the value) for ever, and no answer"
    ] = False

    upload_refused: Annotated[Switch, "uploads, presigning and new repositories: 403 (or the value)"] = False
    json_request_schema: Annotated[Switch, "models: the schema is called json_request_schema"] = False
    models_missing: Annotated[Switch, "models: 404"] = False
    price_missing: Annotated[Switch, "models: no pricing"] = False

    def fault(self, name: str) -> Fault | None:
        """The switch `name` as a Fault, None where it is off. Raises KeyError for an unknown name."""
        if name not in NAMES:
            raise KeyError(f"no such fault: {name}; --list-faults lists them")
        switch: Switch = getattr(self, name)
        if switch is None or switch is False:
            return None
        return switch if isinstance(switch, Fault) else Fault(switch)


NAMES = tuple(f.name for f in fields(Faults))


def describe() -> dict[str, str]:
    """What each switch does, by name, in the order of declaration."""
    hints = get_type_hints(Faults, include_extras=True)
    return {name: str(hints[name].__metadata__[0]) for name in NAMES}


SPELLING = "NAME[@ROUTE][*TIMES][+AFTER][=VALUE]"
_SPELLING = re.compile(
    r"(?P<name>\w+)(?:@(?P<route>\w+))?(?:\*(?P<times>\d+))?(?:\+(?P<after>\d+))?(?:=(?P<value>.*))?", re.S
)


def parse(text: str) -> tuple[str, Fault]:
    """The name and Fault that NAME[@ROUTE][*TIMES][+AFTER][=VALUE] spells.

    Numbers become numbers. Raises ValueError with the reason.
    """
    found = _SPELLING.fullmatch(text)
    if found is None or found["name"] not in NAMES:
        raise ValueError(f"{text!r} is no fault; write {SPELLING}, names: --list-faults")
    times = None if found["times"] is None else int(found["times"])
    value = True if found["value"] is None else _number(found["value"])
    return found["name"], Fault(value, times=times, after=int(found["after"] or 0), route=found["route"] or "")


def _number(text: str) -> Value:
    try:
        number = float(text)
    except ValueError:
        return text
    if not math.isfinite(number):
        return text
    return int(number) if number.is_integer() else number


def from_json(value: Any) -> Switch:
    """A switch from JSON: false or null, true, a number, a text, or an object with Fault's fields.

    Raises ValueError for anything else.
    """
    if isinstance(value, Mapping):
        unknown = set(value) - {f.name for f in fields(Fault)}
        if unknown:
            raise ValueError(f"a fault has no {', '.join(sorted(unknown))}")
        return Fault(**value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(f"a fault is a true or false, a number, a text or an object, not {type(value).__name__}")


class Trips:
    """Faults in use: counts each switch's uses, so that `times` and `after` hold. Thread-safe."""

    def __init__(self, faults: Faults | None = None) -> None:
        self._faults = faults or Faults()
        self._uses: Counter[str] = Counter()
        self._lock = threading.Lock()

    def set(self, switches: Mapping[str, Switch]) -> None:
        """Change some switches; their counts start again. Raises KeyError for an unknown name."""
        for name in switches:
            self._faults.fault(name)
        with self._lock:
            changes: dict[str, Any] = dict(switches)
            self._faults = replace(self._faults, **changes)
            for name in switches:
                del self._uses[name]

    def route(self, name: str) -> str:
        """The route that the switch was moved to, empty where it is off or in its usual place."""
        fault = self._faults.fault(name)
        return fault.route if fault else ""

    def take(self, name: str, subject: str = "", concerns: Callable[[Fault], bool] | None = None) -> Fault | None:
        """The fault if this use of the switch is to misbehave, and count the use.

        A use that does not match, or that `concerns` denies, is none.
        """
        with self._lock:
            fault = self._faults.fault(name)
            if fault is None or fault.match not in subject or (concerns and not concerns(fault)):
                return None
            use = self._uses[name]
            self._uses[name] += 1
        if use < fault.after or (fault.times is not None and use >= fault.after + fault.times):
            return None
        return fault
