"""What the remote nodes do: run, submit or collect the edits of an IMAGE, and turn their outcomes into IMAGE and info.

Loaded when a node first runs, so that telling the nodes' schemas costs ComfyUI's start-up next to nothing.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, TypeVar

import torch

from ... import host
from ...editing.values import shown as shown_value
from ...editing.words import Keep
from ...host.turns import EACH
from ...imaging import codec
from ...imaging.cores import a_core
from ...imaging.errors import ImageError
from ...imaging.pixels import check_image
from ...imaging.stack import Came, Stack
from ...oxen.api.replies import is_generation_id, shown_id
from ...oxen.choices import IfSomeFail, SendAs, WaitMode
from ...oxen.errors import (
    GenerationCancelled,
    GenerationFailed,
    GenerationNotFound,
    Interrupted,
    InvalidParameters,
    OutcomeUnknown,
    OxenError,
    ResultUnavailable,
    ResultUnreadable,
    SomeFailed,
    TimedOut,
    Upstream,
    about,
)
from ...oxen.jobs.afterwards import as_collected
from ...oxen.jobs.batch import Batch
from ...oxen.jobs.order import How, Outcome, Terms
from ...oxen.jobs.progress import Progress
from ...oxen.jobs.record import Record
from ...oxen.jobs.session import Session
from .. import checks
from ..sessions import in_session
from ..types import JobHandle
from . import left_out, lists
from .keeping import Keeping, checked_source, keeping_of, shape_note, sizes_note
from .lists import Failure, Item
from .orders import Order, costless, is_batch
from .origins import note_origins
from .waking import Waking

T = TypeVar("T")

_PROMPT_SHOWN = 40
_UNFETCHED = "Nothing was fetched."
_RUN_AGAIN = "run again and only what failed is paid for"
_NOT_PAID_AGAIN = "by itself nothing of all this is paid again; do as the errors say"
_MAKE_AGAIN = "run the failed edits again with Kontext Edit or Kontext Submit"


@dataclass(frozen=True)
class Gathered:
    """What came of a run, as the nodes hand it on: IMAGE [B,H,W,C], or one that is blocked, and the info text.

    raw: the pictures as they came. says: what Keep says of each, a line each; None where it was not asked. mask: MASK
    of raw, 1 where it is transparent. failed: of what was gone on without.
    """

    image: Any
    info: str
    raw: Any
    says: str | None = None
    mask: Any = None
    failed: tuple[Failure, ...] = ()


def decode(data: bytes) -> Came:
    """The picture of a file; raises ImageError."""
    with a_core():
        return codec.decode(data)


def gather(
    batch: Batch[Came],
    outcomes: Sequence[Outcome[Came]],
    progress: Progress,
    stack: Stack,
    *,
    if_some_fail: IfSomeFail = IfSomeFail.STOP,
    size_sent: tuple[int, int] | None = None,
    same_shape: bool = False,
    send_as: SendAs | None = None,
    keeping: Keeping | None = None,
    told: Mapping[str, Any] | None = None,
) -> Gathered:
    """The pictures that came, stacked at the first one's size, and what there is to know about them.

    stack: was given each of them as it came.
    told: what info says before all else.
    size_sent: (width, height), where it is known. same_shape: the results are to have that shape.
    keeping: lays them back onto the pictures that they were made from. From here they go to a graph, which is noted
    once nothing can go wrong any more.
    Raises the error of a single edit, or SomeFailed for a batch, unless `if_some_fail` says to go on and there is
    something to go on with. What succeeded is in the ledger either way.
    """
    failed = failures(outcomes)
    succeeded = [number for number, o in enumerate(outcomes, 1) if o.picture is not None]
    if failed and (not succeeded or if_some_fail is IfSomeFail.STOP):
        raise failure(failed, len(outcomes), send_as)
    stacked = stack.take([number - 1 for number in succeeded])
    kept = None if keeping is None else keeping.keep(outcomes, stack, stacked, progress)
    # Nothing kept of any of them: image is raw.
    mixed = None if kept is None or kept.image is stacked.image else kept
    edits = []
    for place, number in enumerate(succeeded):
        outcome, resized = outcomes[number - 1], place in (mixed or stacked).resized
        edits.append(_told(number, outcome, size_sent, resized=resized))
        if kept is not None:
            edits[-1]["keep"] = kept.told[place]
    info: dict[str, Any] = {**(told or {}), "edits": edits, "seconds": round(progress.seconds, 2)}
    # what is reused was paid for in an earlier run
    new = [o.record for o in outcomes if o.record is not None and o.how is not How.REUSED]
    costs = [record.cost for record in new if record.cost is not None]
    if costs or not new:
        info["cost_usd"] = float(sum(costs))
    if failed:
        info["failed"] = [{"edit": number, "error": str(error)} for number, error in failed.items()]
    shape = ""
    if size_sent is not None and same_shape and mixed is None:
        shape = shape_note(size_sent, [_size_of(outcomes[number - 1]) for number in succeeded], unkept=kept is None)
    note = " ".join(filter(None, (sizes_note(stacked, mixed, succeeded), shape)))
    if note:
        info["note"] = note
    image = stacked.image if kept is None else kept.image
    says = "\n".join(filter(None, ("" if kept is None else kept.says, shape))) or None
    gathered = Gathered(image, json.dumps(info, indent=2), stacked.image, says, stacked.mask, tuple(failed.values()))
    batch.handed_over(outcomes)
    return gathered


def _size_of(outcome: Outcome[Came]) -> tuple[int, int]:
    assert outcome.picture is not None
    return outcome.picture.width, outcome.picture.height


def _told(number: int, outcome: Outcome[Came], size_sent: tuple[int, int] | None, *, resized: bool) -> dict[str, Any]:
    record, picture = outcome.record, outcome.picture
    assert record is not None and picture is not None and outcome.how is not None
    told: dict[str, Any] = {
        "edit": number,
        "generation_id": record.generation_id,
        "seed": record.parameters.get("seed"),
        "how": outcome.how.value,
        "size_sent": size_sent and "{}x{}".format(*size_sent),
        "size_returned": f"{picture.width}x{picture.height}",
        "resized": resized,
        "seconds": round(outcome.seconds, 2),
        "cost_usd": None if record.cost is None else float(record.cost),
    }
    return {name: value for name, value in told.items() if value is not None}


def failures(outcomes: Sequence[Outcome[Came]]) -> dict[int, OxenError]:
    """The errors of a run by the number of the edit, counted from 1."""
    return {number: outcome.error for number, outcome in enumerate(outcomes, 1) if outcome.error is not None}


def failure(failed: dict[int, OxenError], count: int, send_as: SendAs | None) -> OxenError:
    """One error for the failed of `count` edits, with what became of the others and what to do.

    send_as: how their pictures were sent; None where nothing was sent, and jobs were only collected.
    """
    first = next(iter(failed.values()))
    advice = ""
    too_large = first.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE and not isinstance(first, ResultUnavailable)
    could_be_the_uri = too_large or isinstance(first, Upstream) or "for url" in str(first)
    if could_be_the_uri and send_as in {SendAs.AUTO, SendAs.DATA_URI}:
        advice = " If it keeps happening, the service may refuse pictures in the request: set send_as to Oxen upload."
    if count == 1:
        return first.reworded(first.message + advice)
    error = _of_several(failed, count, send_as, advice)
    error.parts = tuple(failed.values())
    return error


def _of_several(failed: dict[int, OxenError], count: int, send_as: SendAs | None, advice: str) -> OxenError:
    first = next(iter(failed.values()))
    if len({error.message for error in failed.values()}) == 1 and len(failed) == count:
        ids = [one for error in failed.values() for one in error.not_named]
        return first.reworded(about(f"All {count} edits failed: {first.message}{advice}", ids))
    named = " ".join(f"Edit {number}: {error}" for number, error in failed.items())
    again = _again(failed.values(), _RUN_AGAIN if send_as is not None else _MAKE_AGAIN)
    kept = count - len(failed)
    if not kept:
        return SomeFailed(f"All {count} edits failed. {named}{advice}")
    return SomeFailed(
        f"{len(failed)} of {count} edits failed. {named} The other {kept} {'is' if kept == 1 else 'are'} kept: "
        f"{again}, or set if_some_fail to go on with what succeeded.{advice}"
    )


def _again(failed: Iterable[Failure], otherwise: str) -> str:
    """What to do for the failed ones: what is paid for already is not made, or paid, anew by running again."""
    owed = all(isinstance(error, ResultUnavailable | OutcomeUnknown | TimedOut) for error in failed)
    return _NOT_PAID_AGAIN if owed else otherwise


async def edit(
    image: torch.Tensor, widgets: dict[str, Any], node_id: str | None, read: Callable[..., Order] = Order.read
) -> Gathered:
    """Kontext Edit: every picture of an IMAGE [B,H,W,C] edited; raises OxenError or ImageError.

    read: the widgets, checked.
    Where it is for an item of a list and fails, `if_some_fail` says whether the error is raised or, as long as there is
    another with a picture, this one is blocked.
    """

    async def of(item: Item) -> Gathered:
        order = read(**widgets)
        count, keeps = order.count(image), order.keep is Keep.AUTO
        progress = item.begun(Progress(count, item.progress, keeps=keeps))
        run_id = host.run_id()
        await _noted(order, image, item)
        waking = Waking(order.own)

        def work(session: Session) -> Gathered:
            with waking.during(session, progress):
                batch = _batch(order, item, session, run_id, waking.wake)
                edits = order.edits(session, image)
                note_origins(session, image, edits)
                stack = Stack(count)
                outcomes = batch.edit(edits, progress, stack.put)
                waking.leave(progress)
                gathered = gather(
                    batch,
                    outcomes,
                    progress,
                    stack,
                    if_some_fail=order.if_some_fail,
                    size_sent=(image.shape[2], image.shape[1]),
                    same_shape=order.same_shape,
                    send_as=order.send_as,
                    keeping=Keeping(image, count, session.control.check) if keeps else None,
                    told={**order.told, **waking.told},
                )
            says = "\n".join(filter(None, (waking.says, gathered.says))) or None
            return replace(gathered, says=says)

        try:
            gathered = await _in_turn(work, item, progress, node_id)
        finally:
            waking.dropped()
        # what failed otherwise would be paid for by a run that brings this
        if item.is_alone() and gathered.failed and all(map(_is_owed, gathered.failed)):
            left_out.note(node_id)
        return gathered

    name = _described(image, widgets)
    return await _of_a_list(of, _without_picture, node_id, name, widgets.get("if_some_fail"), _RUN_AGAIN)


@dataclass(frozen=True)
class Submitted:
    """What came of submitting: the job and its generation ids, one a line, or both blocked, and what to show."""

    job: Any
    ids: Any
    text: str


async def submit(
    image: torch.Tensor, widgets: dict[str, Any], node_id: str | None, read: Callable[..., Order] = Order.read
) -> Submitted:
    """Kontext Submit: the edits of an IMAGE [B,H,W,C] put into the queue, and what to tell of those that were not.

    read: the widgets, checked. Raises OxenError or ImageError; for an item of a list the job may be blocked instead, as
    with `edit`.
    """

    async def of(item: Item) -> Submitted:
        order = read(**widgets, submit_only=True)
        progress = item.begun(Progress(order.count(image), item.progress))
        run_id = host.run_id()
        await _noted(order, image, item)
        waking = Waking(order.own)

        def work(session: Session) -> Submitted:
            with waking.during(session, progress):
                batch = _batch(order, item, session, run_id, waking.wake)
                edits = order.edits(session, image)
                note_origins(session, image, edits)
                submitted = _submitted(batch.edit(edits, progress), order)
            # with its jobs under way it is left awake: whoever submits has to know
            return replace(submitted, text="\n".join(filter(None, (submitted.text, waking.afterword))))

        try:
            return await _in_turn(work, item, progress, node_id)
        finally:
            waking.dropped()

    def instead(blocked: Any, name: str, error: Failure) -> Submitted:
        return Submitted(blocked, blocked, f"Item {name} was not submitted: {error}")

    name = _described(image, widgets)
    return await _of_a_list(of, instead, node_id, name, widgets.get("if_some_fail"), _RUN_AGAIN)


def _submitted(outcomes: Sequence[Outcome[Came]], order: Order) -> Submitted:
    placed = [(place, outcome.record) for place, outcome in enumerate(outcomes) if outcome.record is not None]
    records = [record for _, record in placed]
    failed = failures(outcomes)
    if failed and (not records or order.if_some_fail is IfSomeFail.STOP):
        raise failure(failed, len(outcomes), order.send_as)
    ids = tuple(record.generation_id for record in records if record.generation_id is not None)
    lines = [*ids, *(f"Edit {number} was not submitted: {error}" for number, error in failed.items())]
    job = JobHandle(tuple(record.id for record in records), ids, tuple(place for place, _ in placed), len(outcomes))
    return Submitted(job, "\n".join(ids), "\n".join(lines))


async def collect(
    job: JobHandle | None,
    text: str,
    wait: str,
    timeout: float,
    if_some_fail: str,
    source: torch.Tensor | None,
    keep: str,
    node_id: str | None,
) -> Gathered:
    """Kontext Collect: the pictures of a job and of the generation ids in a text; raises OxenError or ImageError.

    source: the pictures before the edits, where `keep` asks for them. For an item of a list the picture may be blocked
    instead, as with `edit`.
    """

    async def of(item: Item) -> Gathered:
        ids = generation_ids(job, text, required=True)
        terms = Terms(wait=checks.member(WaitMode, wait, "wait"), seconds=checks.number(timeout, "timeout"))
        policy = checks.member(IfSomeFail, if_some_fail, "if_some_fail")
        # a picture that one blocking request gave has a record and no id, an id of another day no record
        count = len(ids) if job is None else len(job.records) + len(set(ids) - set(job.generation_ids))
        keeps = checks.member(Keep, keep, "keep") is Keep.AUTO
        asked = job.asked if job is not None and count == len(job.records) else 0
        with costless(_UNFETCHED):
            before = checked_source(source, count, asked) if keeps else None
        progress = item.begun(Progress(count, item.progress, keeps=keeps))

        def work(session: Session) -> Gathered:
            if before is not None:
                with costless(_UNFETCHED):
                    check_image(before)
            records = _records(session, job, ids)
            batch = Batch(session, decode, terms, hopeless=item.hopeless)
            stack = Stack(len(records))
            outcomes = [as_collected(outcome) for outcome in batch.collect(records, progress, stack.put)]
            keeping = None if before is None else keeping_of(before, job, records, session.control.check)
            return gather(batch, outcomes, progress, stack, if_some_fail=policy, keeping=keeping)

        return await _in_turn(work, item, progress, node_id)

    named = (*getattr(job, "generation_ids", ()), *str(text).split())
    name = f" ({named[0][:60]})" if named else ""
    gathered = await _of_a_list(of, _without_picture, node_id, name, if_some_fail, _MAKE_AGAIN)
    if any(map(_may_come, gathered.failed)):
        left_out.note(node_id)
    return gathered


def _is_owed(error: Failure) -> bool:
    """Whether what an edit failed of leaves its picture to be had by asking once more, without paying."""
    return isinstance(error, TimedOut | ResultUnavailable) and _may_come(error)


def _may_come(error: Failure) -> bool:
    """Whether what could not be collected may be, by asking once more."""
    lost = isinstance(
        error, GenerationFailed | GenerationCancelled | GenerationNotFound | ResultUnreadable | ImageError
    )
    return not lost and getattr(error, "status", None) not in (HTTPStatus.GONE, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)


async def _in_turn(work: Callable[[Session], T], item: Item, progress: Progress, node_id: str | None) -> T:
    """Do the work of an item of a list, or of a node alone, when its turn has come."""

    load = min(progress.edits, EACH)
    return await in_session(
        work,
        progress=item.progress,
        node_id=node_id,
        load=load,
        is_last=item.is_last,
        after_stop=item.left_over,
    )


async def _of_a_list(
    run: Callable[[Item], Awaitable[T]],
    instead: Callable[[Any, str, Failure], T],
    node_id: str | None,
    described: str,
    if_some_fail: object,
    again: str,
) -> T:
    """What `run` gives for one item; where it fails and others do not, what the policy says.

    instead: what the node gives where it goes on without this item, from a blocked value, its name and its error.
    again: what to do for failed items.
    """
    async with lists.item(node_id) as item:
        item.name += described
        try:
            return await run(item)
        except Interrupted:
            raise
        except (OxenError, ImageError) as error:
            failed = await item.failed(error)
            if failed is None:
                raise
            if if_some_fail != IfSomeFail.GO_ON or not failed.kept:
                raise failed.error(_again(failed.failures, again)) from error
            # one report for all: ComfyUI shows each to the artist
            return instead(host.blocked(failed.text if failed.tells else None), item.name, error)


async def _noted(order: Order, image: torch.Tensor, item: Item) -> None:
    """Note what an item asks for, before any of its list is sent."""
    item.asked.note(order, image)
    await item.all_here()


def _batch(order: Order, item: Item, session: Session, run_id: str, before_new: Callable[[], None]) -> Batch[Came]:
    """The batch of one item, which knows what the list as a whole asks for.

    Where what is new of the list would pass a spend limit, none of it is sent.
    """
    for_lost, decision, refusal = item.asked.look(session, run_id)
    if refusal is not None and not item.hopeless:
        item.hopeless.append(refusal)
    for_lost = for_lost and not order.terms.reuse
    return Batch(
        session,
        decode,
        order.terms,
        run_id,
        item.hopeless,
        for_lost=for_lost,
        decision=decision,
        before_new=before_new,
    )


def _without_picture(blocked: Any, name: str, error: Failure) -> Gathered:
    told = {"edits": [], "failed": [{"item": name, "error": str(error)}]}
    return Gathered(blocked, json.dumps(told, indent=2), blocked, mask=blocked, failed=(error,))


def _described(image: object, widgets: dict[str, Any]) -> str:
    """A name by which people can tell one item of a list from another; the inputs are not checked yet."""
    size = f"{_size(image)}, " if isinstance(image, torch.Tensor) and is_batch(image) else ""
    own = widgets.get("model")
    widgets = {**own, **widgets} if isinstance(own, Mapping) else widgets
    # Neither has been checked yet, and not everything that a link gives has a text of a bearable length.
    seed, written = (
        one if isinstance(one, str) else shown_value(one) for one in (widgets.get("seed"), widgets.get("prompt", ""))
    )
    told = f"seed {seed}, " if "seed" in widgets else ""
    prompt = " ".join(written.split())
    shown = prompt if len(prompt) <= _PROMPT_SHOWN else prompt[: _PROMPT_SHOWN - 1] + "…"
    return f' ({size}{told}"{shown}")'


def _size(image: torch.Tensor) -> str:
    return f"{image.shape[2]}x{image.shape[1]}"


def generation_ids(job: JobHandle | None, text: str, *, required: bool) -> tuple[str, ...]:
    """The generation ids of a job and of a text with one a line, in order, each once.

    Raises InvalidParameters for what is no id, and where there is neither id nor job although it is `required`.
    """
    if job is not None and not isinstance(job, JobHandle):
        raise InvalidParameters("job takes what Kontext Submit gives; something else is connected. Nothing was sent.")
    written = checks.text(text, "generation_ids").replace(",", " ").split()
    ids = tuple(dict.fromkeys((*(job.generation_ids if job else ()), *written)))
    for generation_id in ids:
        if not is_generation_id(generation_id):
            raise InvalidParameters(
                f"{shown_id(generation_id)} is not a generation id. Give one a line, as Kontext Submit shows them. "
                "Nothing was sent."
            )
    if required and not ids and not (job and job.records):
        raise InvalidParameters(
            "There is no job: connect Kontext Submit's job, or write generation ids, one a line. Nothing was sent."
        )
    return ids


def _records(session: Session, job: JobHandle | None, ids: tuple[str, ...]) -> list[Record]:
    """The ledger's records of a job and of ids, each once."""
    for generation_id in ids:
        session.client.check_id(generation_id)
    known = [session.ledger.by_id(number) for number in (job.records if job else ())]
    records = [record for record in known if record is not None]
    taken = {record.generation_id for record in records}
    return records + [session.ledger.adopt(generation_id) for generation_id in ids if generation_id not in taken]
