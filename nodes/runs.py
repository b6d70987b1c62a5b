"""What the remote nodes do: IMAGE into edits, edits into jobs, outcomes into IMAGE and info.

Loaded when a node first runs, so that telling the nodes' schemas costs ComfyUI's start-up next to nothing.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any, TypeVar

import torch

from .. import host
from ..imaging.codec import DecodedImage, decode, encode, to_tensors
from ..imaging.pixels import UInt8, check_image, digest, to_uint8
from ..imaging.uri import to_data_uri
from ..oxen.batch import Batch
from ..oxen.choices import IfSomeFail, Result, SendAs, WaitMode
from ..oxen.control import Control
from ..oxen.credentials import Account, find_account, find_base_url
from ..oxen.edits import Edit, How, Outcome, Terms
from ..oxen.errors import InvalidParameters, OxenError, SomeFailed, Upstream
from ..oxen.progress import Progress
from ..oxen.record import Record
from ..oxen.replies import is_generation_id, shown_id
from ..oxen.request import VARIATIONS, AspectRatio, EditParameters, OutputFormat, member_of, text_of
from ..oxen.session import Session
from ..oxen.settings import load_settings
from ..oxen.uploads import upload
from .types import Job

T = TypeVar("T")

_MAX_EDITS = 256


@contextlib.contextmanager
def open_session(control: Control) -> Iterator[Session]:
    """A session for this machine's account, settings and ledger; raises Misconfigured."""
    folder = host.user_folder()
    with Session(find_account(folder), folder, load_settings(folder), control) as session:
        yield session


def account_without_key() -> Account:
    """This machine's service without its key, for downloads that a workflow names."""
    return Account(find_base_url(), None)


async def in_session(
    work: Callable[[Session], T], *, progress: Progress | None = None, node_id: str | None = None
) -> T:
    """Run `work` in a session of its own off the event loop; Cancel stops it within a second."""
    control = Control()

    def call() -> T:
        with open_session(control) as session:
            return work(session)

    return await host.run_off_loop(call, control, status=progress, node_id=node_id)


@dataclass(frozen=True)
class Order:
    """What the widgets of an edit node ask for."""

    parameters: EditParameters
    variations: int
    terms: Terms
    send_as: SendAs
    if_some_fail: IfSomeFail

    @classmethod
    def read(
        cls,
        *,
        prompt: str,
        aspect_ratio: str,
        steps: int,
        guidance: float,
        seed: int,
        variations: int = 1,
        output_format: str = OutputFormat.PNG.value,
        output_quality: int = 95,
        disable_safety_checker: bool = False,
        wait: str = WaitMode.EVENTS.value,
        send_as: str = SendAs.AUTO.value,
        timeout: float = 300.0,
        namespace: str = "",
        result: str = Result.REUSE.value,
        if_some_fail: str = IfSomeFail.STOP.value,
        submit_only: bool = False,
    ) -> Order:
        """The widgets' values, checked, as ComfyUI checks no linked ones; raises InvalidParameters."""
        if not VARIATIONS[0] <= variations <= VARIATIONS[1]:
            raise InvalidParameters(
                f"variations is {variations}; it takes {VARIATIONS[0]} to {VARIATIONS[1]}. Nothing was sent."
            )
        parameters = EditParameters(
            prompt=prompt,
            seed=seed,
            aspect_ratio=member_of(AspectRatio, aspect_ratio, "aspect_ratio"),
            steps=steps,
            guidance=guidance,
            output_format=member_of(OutputFormat, output_format, "output_format"),
            output_quality=output_quality,
            disable_safety_checker=disable_safety_checker,
            namespace=namespace,
        )
        terms = Terms(
            wait=member_of(WaitMode, wait, "wait"),
            reuse=member_of(Result, result, "result") is Result.REUSE,
            seconds=float(timeout),
            submit_only=submit_only,
        )
        return cls(
            parameters,
            variations,
            terms,
            member_of(SendAs, send_as, "send_as"),
            member_of(IfSomeFail, if_some_fail, "if_some_fail"),
        )

    def count(self, image: torch.Tensor) -> int:
        """How many edits an IMAGE [B,H,W,C] makes; raises ImageError or InvalidParameters for what cannot be sent."""
        pictures = check_image(image).shape[0]
        count = pictures * self.variations
        if count > _MAX_EDITS:
            raise InvalidParameters(
                f"{pictures} pictures with {self.variations} variations are {count} edits; at most {_MAX_EDITS} are "
                "made in one go. Split the batch. Nothing was sent."
            )
        return count

    def edits(self, session: Session, image: torch.Tensor) -> list[Edit]:
        """The edits of an IMAGE: the variations of each picture in turn, with seeds counting up from the first."""
        edits: list[Edit] = []
        for picture in image:
            pixels = to_uint8(picture)
            same = digest(pixels)
            send = _Once(partial(_input_image, session, pixels, self.send_as), self.variations)
            for _ in range(self.variations):
                parameters = self.parameters.with_seed(self.parameters.seed + len(edits))
                edits.append(Edit(parameters, same, send))
        return edits


class _Once:
    """A text that is made when it is first asked for, and kept until it was asked for as often as it will be."""

    def __init__(self, make: Callable[[], str], uses: int) -> None:
        self._make = make
        self._uses = uses
        self._made: str | None = None
        self._guard = threading.Lock()

    def __call__(self) -> str:
        with self._guard:
            made = self._make() if self._made is None else self._made
            self._uses -= 1
            self._made = made if self._uses > 0 else None
            return made


def _input_image(session: Session, pixels: UInt8, send_as: SendAs) -> str:
    encoded = encode(pixels)
    if send_as is not SendAs.UPLOAD:
        return to_data_uri(encoded)
    return upload(session.client, encoded.data, encoded.media_type, session.settings.upload_repository)


@dataclass(frozen=True)
class Gathered:
    """What came of a run, as the nodes hand it on: IMAGE [B,H,W,3] and the info text."""

    image: torch.Tensor
    info: str


def gather(
    batch: Batch[DecodedImage],
    outcomes: Sequence[Outcome[DecodedImage]],
    progress: Progress,
    *,
    if_some_fail: IfSomeFail = IfSomeFail.STOP,
    size_sent: str | None = None,
    send_as: SendAs | None = None,
) -> Gathered:
    """The pictures that came, stacked at the first one's size, and what there is to know about them.

    From here they go to a graph, which is noted once nothing can go wrong any more.
    Raises the error of a single edit, or SomeFailed for a batch, unless `if_some_fail` says to go on and there is
    something to go on with. What succeeded is in the ledger either way.
    """
    failed = failures(outcomes)
    pictures = [o.picture for o in outcomes if o.picture is not None]
    if failed and (not pictures or if_some_fail is IfSomeFail.STOP):
        raise failure(failed, len(outcomes), send_as)
    stacked = to_tensors(pictures)
    succeeded = [number for number, o in enumerate(outcomes, 1) if o.picture is not None]
    edits = []
    for place, number in enumerate(succeeded):
        outcome = outcomes[number - 1]
        edits.append(_told(number, outcome, size_sent, resized=place in stacked.resized))
    info: dict[str, Any] = {"edits": edits, "seconds": round(progress.seconds, 2)}
    # what is reused was paid for in an earlier run
    new = [o.record for o in outcomes if o.record is not None and o.how is not How.REUSED]
    costs = [record.cost for record in new if record.cost is not None]
    if costs or not new:
        info["cost_usd"] = float(sum(costs))
    if failed:
        info["failed"] = [{"edit": number, "error": str(error)} for number, error in failed.items()]
    if stacked.resized:
        height, width = stacked.image.shape[1:3]
        which = ", ".join(str(succeeded[place]) for place in stacked.resized)
        info["note"] = f"The results differ in size; number {which} brought to {width}x{height}, the first one's size."
    gathered = Gathered(stacked.image, json.dumps(info, indent=2))
    batch.handed_over(outcomes)
    return gathered


def _told(number: int, outcome: Outcome[DecodedImage], size_sent: str | None, *, resized: bool) -> dict[str, Any]:
    record, picture = outcome.record, outcome.picture
    assert record is not None and picture is not None and outcome.how is not None
    told: dict[str, Any] = {
        "edit": number,
        "generation_id": record.generation_id,
        "seed": record.parameters.get("seed"),
        "how": outcome.how.value,
        "size_sent": size_sent,
        "size_returned": f"{picture.width}x{picture.height}",
        "resized": resized,
        "seconds": round(outcome.seconds, 2),
        "cost_usd": None if record.cost is None else float(record.cost),
    }
    return {name: value for name, value in told.items() if value is not None}


def failures(outcomes: Sequence[Outcome[DecodedImage]]) -> dict[int, OxenError]:
    """The errors of a run by the number of the edit, counted from 1."""
    return {number: outcome.error for number, outcome in enumerate(outcomes, 1) if outcome.error is not None}


def failure(failed: dict[int, OxenError], count: int, send_as: SendAs | None) -> OxenError:
    """One error for the failed of `count` edits, with what became of the others and what to do.

    send_as: how their pictures were sent; None where nothing was sent, and jobs were only collected.
    """
    first = next(iter(failed.values()))
    advice = ""
    too_large = first.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    could_be_the_uri = too_large or isinstance(first, Upstream) or "for url" in str(first)
    if could_be_the_uri and send_as in {SendAs.AUTO, SendAs.DATA_URI}:
        advice = " If it keeps happening, the service may refuse pictures in the request: set send_as to Oxen upload."
    if count == 1:
        return first.reworded(first.message + advice)
    if len({str(error) for error in failed.values()}) == 1 and len(failed) == count:
        return first.reworded(f"All {count} edits failed: {first.message}{advice}")
    named = " ".join(f"Edit {number}: {error}" for number, error in failed.items())
    again = "run again and only what failed is paid for"
    if send_as is None:
        again = "run the failed edits again with Kontext Edit or Kontext Submit"
    kept = count - len(failed)
    if not kept:
        return SomeFailed(f"All {count} edits failed. {named}{advice}")
    return SomeFailed(
        f"{len(failed)} of {count} edits failed. {named} The other {kept} {'is' if kept == 1 else 'are'} kept: "
        f"{again}, or set if_some_fail to go on with what succeeded.{advice}"
    )


async def edit(image: torch.Tensor, widgets: dict[str, Any], node_id: str | None) -> Gathered:
    """Kontext Edit: every picture of an IMAGE [B,H,W,C] edited; raises OxenError or ImageError."""
    order = Order.read(**widgets)
    progress = Progress(order.count(image))
    run_id = host.run_id()

    def work(session: Session) -> Gathered:
        batch = Batch(session, decode, order.terms, run_id)
        outcomes = batch.edit(order.edits(session, image), progress)
        size = f"{image.shape[2]}x{image.shape[1]}"
        return gather(batch, outcomes, progress, if_some_fail=order.if_some_fail, size_sent=size, send_as=order.send_as)

    return await in_session(work, progress=progress, node_id=node_id)


async def submit(image: torch.Tensor, widgets: dict[str, Any], node_id: str | None) -> tuple[Job, str]:
    """Kontext Submit: the edits of an IMAGE [B,H,W,C] put into the queue, and what to tell of those that were not.

    Raises OxenError or ImageError.
    """
    order = Order.read(**widgets, submit_only=True)
    progress = Progress(order.count(image))
    run_id = host.run_id()

    def work(session: Session) -> tuple[Job, str]:
        outcomes = Batch(session, decode, order.terms, run_id).edit(order.edits(session, image), progress)
        records = [outcome.record for outcome in outcomes if outcome.record is not None]
        failed = failures(outcomes)
        if failed and (not records or order.if_some_fail is IfSomeFail.STOP):
            raise failure(failed, len(outcomes), order.send_as)
        ids = tuple(record.generation_id for record in records if record.generation_id is not None)
        notes = "\n".join(f"Edit {number} was not submitted: {error}" for number, error in failed.items())
        return Job(tuple(record.id for record in records), ids), notes

    return await in_session(work, progress=progress, node_id=node_id)


async def collect(
    job: Job | None, text: str, wait: str, timeout: float, if_some_fail: str, node_id: str | None
) -> Gathered:
    """Kontext Collect: the pictures of a job and of the generation ids in a text; raises OxenError."""
    ids = generation_ids(job, text, required=True)
    terms = Terms(wait=member_of(WaitMode, wait, "wait"), seconds=float(timeout))
    policy = member_of(IfSomeFail, if_some_fail, "if_some_fail")
    # a picture that one blocking request gave has a record and no id, an id of another day no record
    progress = Progress(len(ids) if job is None else len(job.records) + len(set(ids) - set(job.generation_ids)))

    def work(session: Session) -> Gathered:
        records = _records(session, job, ids)
        batch = Batch(session, decode, terms)
        return gather(batch, batch.collect(records, progress), progress, if_some_fail=policy)

    return await in_session(work, progress=progress, node_id=node_id)


def generation_ids(job: Job | None, text: str, *, required: bool) -> tuple[str, ...]:
    """The generation ids of a job and of a text with one a line, in order, each once.

    Raises InvalidParameters for what is no id, and where there is neither id nor job although it is `required`.
    """
    ids = tuple(
        dict.fromkeys(
            (*(job.generation_ids if job else ()), *text_of("generation_ids", text).replace(",", " ").split())
        )
    )
    for generation_id in ids:
        if not is_generation_id(generation_id):
            raise InvalidParameters(
                f"{shown_id(generation_id)} is not a generation id. Give one a line, as Kontext Submit shows them."
            )
    if required and not ids and not (job and job.records):
        raise InvalidParameters("There is no job: connect Kontext Submit's job, or write generation ids, one a line.")
    return ids


def _records(session: Session, job: Job | None, ids: tuple[str, ...]) -> list[Record]:
    """The ledger's records of a job and of ids, each once."""
    for generation_id in ids:
        session.client.check_id(generation_id)
    known = [session.ledger.by_id(number) for number in (job.records if job else ())]
    records = [record for record in known if record is not None]
    taken = {record.generation_id for record in records}
    return records + [session.ledger.adopt(generation_id) for generation_id in ids if generation_id not in taken]
