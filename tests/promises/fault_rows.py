"""The rows of the fault matrix, and which of their cells the tests run; the benchmark runs all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from fault_cells import BEFORE, HUNG, NO_ANSWER, STAGE_NAMES, STOPS, Action, Cell, Clock, Mode, stages
from kontext_bridge.standin.faults import NAMES, Value

ONCE_EACH = tuple(Mode)
LAG = 0.5  # seconds by which lists are late; how long the client looks leaves a busy machine a second more


@dataclass(frozen=True)
class Doubt:
    """How lists differ from what was sent. may_ask: whether that leaves a lost edit's fate open."""

    fault: str
    value: Value = True
    may_ask: bool = True
    also: tuple[tuple[str, Value], ...] = ()


MANY = (("list_newer", 15),)  # so that the job is on the second page
DOUBTS = (
    *(Doubt("list_input_image", how) for how in ("url", "cut", "null", "reencoded", "absent")),
    # what is equal once it is written alike leaves no doubt
    *(Doubt("list_prompt", how, may_ask=False) for how in ("trimmed", "nfd")),
    *(Doubt("list_prompt", how) for how in ("cut", "upper", "rewritten")),
    *(Doubt("list_numbers", how, may_ask=False) for how in ("guidance_text", "guidance_near", "seed_text")),
    Doubt("list_numbers", "seed_own"),
    *(Doubt("list_model", how) for how in ("black-forest-labs/{}", "FLUX.1-Kontext [dev]")),
    Doubt("list_entries", "null", also=(*MANY, ("list_small_pages", 5), ("list_page_ignored", True))),
    *(Doubt("list_enqueued_at", how, may_ask=False) for how in ("null", "text", "iso", "ms", "naive")),
    Doubt("list_newer", 15, may_ask=False),
    *(Doubt("list_pages", how, also=MANY) for how in ("null", 1)),
    Doubt("list_small_pages", 5, may_ask=False, also=MANY),
    Doubt("list_page_ignored", also=MANY),
    *(Doubt("list_order", how, also=MANY) for how in ("oldest", "shuffled")),
    *(Doubt("list_null_id", how) for how in ("one more", "all")),
    Doubt("list_null"),
    *(Doubt("date_off", how, may_ask=False) for how in (7200, -7200, 400, "varies")),
    Doubt("list_lags", LAG, may_ask=False),
)
# What a gateway may say of a request that the service took.
REFUSALS: tuple[Value, ...] = (403, 408, 409, 425, 429, 499, "409 json", "429 json")
# Odd, and no reason to fail: the first run delivers.
SMOOTH: tuple[tuple[str, Value], ...] = (
    ("answer_interim", True),
    *(("cost_odd", how) for how in ("1e9999999", "-5", "NaN", "a few cents")),
    ("row_late", 1.0),
    *(("status_case", how) for how in ("title", "upper")),
    ("status_starting", 1.0),
    *(("result_late", how) for how in ("404:1", "403:1")),
    ("result_gzip", True),
    *(("result_aws_chunked", how) for how in ("aws-chunked", "binary")),
)
BOMB_MB = 24  # more than any answer may be, and still little enough for what would read it
BOMBS: tuple[tuple[str, Value], ...] = (
    ("bomb", BOMB_MB),
    *((name, True) for name in ("redirect_body", "trailers_endless", "headers_endless", "interim_endless")),
)
NEW = frozenset({doubt.fault for doubt in DOUBTS} - {"list_lags"})
NEW |= {name for name, _ in (*SMOOTH, *BOMBS)} | {"answer_status", "answer_bad_header"}
_HALF = (Mode.EVENTS, Mode.BLOCKING)
_CORRECTIONS = {"+2 h": 7200, "+400 s": 400, "-2 h": -7200, "+3 years": 3 * 365 * 86400}
CLOCKS = (
    # a clock that was wrong and is put right between the two runs, or that is right and then wrong
    *(Clock(f"clock {name}", first=-seconds) for name, seconds in _CORRECTIONS.items()),
    *(Clock(f"clock {name}, then wrong", later=seconds) for name, seconds in _CORRECTIONS.items()),
)
OTHER_MODELS = ("topazlabs-image-upscale", "qwen-image-edit-plus", "gpt-image-2")
ROOMS = (0, 8 << 10, 16 << 10, 24 << 10, 32 << 10, 40 << 10, 48 << 10, 64 << 10)


def routes(mode: Mode) -> tuple[str, ...]:
    """Where a run in this mode sends requests, the routes of an upload and of a spend limit among them."""
    own = ("edit",) if mode is Mode.BLOCKING else ("enqueue", "row", "generation", "result", "cancel")
    heard = ("events",) if mode in {Mode.EVENTS, Mode.SUBMIT} else ()
    return (*own, *heard, "queue", "history", "model", "me", "context", "presign")


def every_switch() -> Iterator[Cell]:
    """Every switch of the older kind, times every mode, times nothing, a stop at each stage."""
    for fault in (None, *(name for name in NAMES if name not in NEW)):
        for mode in Mode:
            yield Cell(fault, mode)
            if fault is not None:
                yield Cell(fault, mode, once=True)
            yield from _stopped(Cell(fault, mode))


def _stopped(cell: Cell) -> Iterator[Cell]:
    for stage in stages(cell.mode):
        if cell.fault not in stage.switches:
            for action in STOPS:
                yield replace(cell, stage=stage.name, action=action)


def doubts() -> Iterator[Cell]:
    """A lost answer, or a run stopped, and then lists that differ a little from what was sent."""
    for doubt in DOUBTS:
        for mode in Mode:
            cell = Cell(
                doubt.fault, mode, value=doubt.value, also=doubt.also, kept=True, may_ask=doubt.may_ask, lost=True
            )
            yield cell
            yield from _stopped(replace(cell, lost=False))


def answers() -> Iterator[Cell]:
    """An answer that says no, or makes no sense, to a request that was taken."""
    for fault, value in (*(("answer_status", status) for status in REFUSALS), ("answer_bad_header", True)):
        for mode in Mode:
            cell = Cell(fault, mode, value=value)
            yield from (cell, replace(cell, once=True), *_stopped(cell))


def odd_and_fine() -> Iterator[Cell]:
    """What is odd and no reason to fail."""
    for fault, value in SMOOTH:
        for mode in Mode:
            cell = Cell(fault, mode, value=value, smooth=True)
            yield from (cell, *_stopped(replace(cell, smooth=False)))


def bombs() -> Iterator[Cell]:
    """An answer made to do harm, on the paid route and on every other."""
    for fault, value in BOMBS:
        for mode in Mode:
            cell = Cell(fault, mode, value=value)
            yield from (cell, *_stopped(cell))
            for route in routes(mode):
                if route == "cancel":
                    yield replace(cell, route=route, stage="queued", action=Action.CANCEL)
                elif route not in ("enqueue", "edit"):
                    yield replace(cell, route=route, lost=route in ("queue", "history"))


def hung() -> Iterator[Cell]:
    """A request that hangs, on every route, cancelled: another edit of the same process goes on at once."""
    for fault in ("never_answers", "redirect_body", "trailers_endless", "headers_endless", "interim_endless"):
        for mode in Mode:
            for route in routes(mode):
                if route != "cancel":
                    lost = route in ("queue", "history")
                    yield Cell(fault, mode, HUNG, Action.CANCEL, route=route, lost=lost)


def clocks() -> Iterator[Cell]:
    """A clock that was corrected between the run that was stopped and the next."""
    for clock in CLOCKS:
        for mode in Mode:
            cell = Cell(None, mode, clock=clock)
            late = Cell("list_lags", mode, value=LAG, clock=clock, kept=True)
            yield from (*_stopped(cell), *_stopped(late))


def full_disks() -> Iterator[Cell]:
    """A disk that is full from some size of the files on, or from some moment."""
    for mode in Mode:
        # what was handed over and could not be kept is paid again only when asked
        cell = Cell(None, mode, may_ask=mode is Mode.BLOCKING)
        yield from (replace(cell, room=room) for room in ROOMS)
        yield from (replace(cell, stage=stage.name, action=Action.FULL) for stage in stages(mode))


def twins() -> Iterator[Cell]:
    """Two edits alike but for their pictures, both lost."""
    for how in (None, "url", "cut", "null", "reencoded", "absent"):
        for mode in Mode:
            cell = Cell(how and "list_input_image", mode, pictures=2, kept=True, may_ask=how is not None)
            cell = replace(cell, value=how) if how else cell
            yield replace(cell, lost=True)
            yield from (replace(cell, stage=NO_ANSWER, action=action) for action in STOPS)


def other_models() -> Iterator[Cell]:
    """Models that have no prompt and no seed, no seed, and several pictures with a mask: what tells their edits apart
    is less, or elsewhere, than in an edit by Kontext.
    """
    for model in OTHER_MODELS:
        for mode in Mode:
            yield Cell(None, mode, model=model, pictures=2, kept=True, lost=True)
        for mode, stage, action in (
            (Mode.EVENTS, NO_ANSWER, Action.KILL),
            (Mode.BLOCKING, NO_ANSWER, Action.CANCEL),
            (Mode.POLLING, "processing", Action.CANCEL),
            (Mode.SUBMIT, "downloading", Action.KILL),
        ):
            yield Cell(None, mode, stage, action, model=model)
        yield Cell("list_input_image", Mode.POLLING, value="url", model=model, kept=True, may_ask=True, lost=True)


def all_cells() -> Iterator[Cell]:
    """The whole product; thousands."""
    for group in (every_switch, doubts, answers, odd_and_fine, bombs, hung, clocks, full_disks, twins, other_models):
        yield from group()


def can_show(cell: Cell) -> bool:
    """Whether a switch has an occasion to misbehave in such a run."""
    fault, mode, action = cell.fault or "", cell.mode, cell.action
    if fault.startswith("event"):
        return mode in {Mode.EVENTS, Mode.SUBMIT}
    if fault in {"image_url_reply", "url_though_b64", "b64_though_url", "b64_garbage", "history_without_sync"}:
        return mode is Mode.BLOCKING
    if fault.startswith("cancel"):
        return mode is not Mode.BLOCKING and action is Action.CANCEL
    if fault in {"upload_refused", "models_missing", "price_missing", "json_request_schema"}:
        return action is None
    if fault.startswith(("result_", "row_", "status_", "cost_")) and fault in NEW:
        return mode is not Mode.BLOCKING
    return True


def chosen_cells() -> Iterator[Cell]:
    """What runs in CI: every switch in every mode, no switch at every stage in every mode, and every switch at every
    stage (the newer ones at two) in one mode, cancelled and killed in turns; without those in which the switch cannot
    show. Of a switch's further values, and of the rows that are no switch's, a few cells each.
    """
    yield from (cell for cell in every_switch() if _is_basic(cell))
    yield from _older_at_stages()
    for group in (doubts, answers, odd_and_fine, bombs):
        rows: dict[tuple[str, Value], list[Cell]] = {}
        for cell in group():
            if can_show(cell) and not cell.once:
                rows.setdefault((cell.fault or "", cell.value), []).append(cell)
        seen: set[str] = set()
        for number, ((fault, _), row) in enumerate(rows.items()):
            yield from _few(number, row) if fault not in seen else _fewer(number, row)
            seen.add(fault)
    yield from _in_turns(hung(), lambda cell: (cell.fault, cell.route))
    yield from _in_turns(twins(), lambda cell: (cell.row, cell.action, cell.mode is Mode.BLOCKING))
    yield from (cell for cell in full_disks() if cell.mode in _HALF)
    yield from other_models()
    for cell in clocks():
        told = cell.stage == NO_ANSWER or (cell.stage == BEFORE.name and cell.fault is None)
        if told and cell.clock and cell.clock.first and cell.mode in _HALF and cell.action is Action.KILL:
            yield cell


def _is_basic(cell: Cell) -> bool:
    return cell.fault is None or (cell.action is None and not cell.once and can_show(cell))


def _older_at_stages() -> Iterator[Cell]:
    for row, fault in enumerate(name for name in NAMES if name not in NEW):
        for column, name in enumerate(STAGE_NAMES):
            wanted = ONCE_EACH[(row + column) % len(ONCE_EACH)]
            action = Action.CANCEL if fault.startswith("cancel") else STOPS[(row // len(ONCE_EACH) + column) % 2]
            cells = (Cell(fault, mode, name, action) for mode in (wanted, *ONCE_EACH))
            able = [
                cell
                for cell in cells
                if can_show(cell)
                and any(stage.name == name and fault not in stage.switches for stage in stages(cell.mode))
            ]
            yield from able[:1]


def _few(number: int, row: list[Cell]) -> Iterator[Cell]:
    """Of a row: undisturbed in every mode (on other routes than its own in one), and stopped at two stages."""
    yield from (cell for cell in row if cell.action is None and not cell.route)
    yield from _in_turns((cell for cell in row if cell.route), lambda cell: cell.route)
    for turn, name in enumerate((NO_ANSWER, BEFORE.name if row[0].kept else "processing")):
        action = STOPS[(number + turn) % 2]
        able = [cell for cell in row if cell.stage == name and cell.action is action and not cell.route]
        yield able[(number + turn) % len(able)]


def _fewer(number: int, row: list[Cell]) -> Iterator[Cell]:
    """Of a row that differs from one before in its value alone: undisturbed in a queue's mode and blocking."""
    calm = [cell for cell in row if cell.action is None and not cell.route]
    queued = [cell for cell in calm if cell.mode is not Mode.BLOCKING]
    yield queued[number % len(queued)]
    yield from (cell for cell in calm if cell.mode is Mode.BLOCKING)
    action = STOPS[number % 2]
    able = [cell for cell in row if cell.stage == NO_ANSWER and cell.action is action and not cell.route]
    yield able[number % len(able)]


def _in_turns(cells: Iterator[Cell], kind: Callable[[Cell], object]) -> Iterator[Cell]:
    """One cell of each kind, each in another mode than the one before where there is a choice."""
    kinds: dict[object, list[Cell]] = {}
    for cell in cells:
        kinds.setdefault(kind(cell), []).append(cell)
    yield from (row[number % len(row)] for number, row in enumerate(kinds.values()))
