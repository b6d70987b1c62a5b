"""What the remote nodes share: an open session, IMAGE into edits, outcomes into IMAGE and info."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch

from .. import host
from ..imaging.codec import DecodedImage, encode, to_tensors
from ..imaging.pixels import UInt8, check_image, digest, to_uint8
from ..imaging.uri import to_data_uri
from ..oxen.control import Control
from ..oxen.credentials import Account, find_account
from ..oxen.edits import Edit, Outcome, Terms, WaitMode
from ..oxen.errors import InvalidParameters, OxenError, SomeFailed, Upstream
from ..oxen.progress import Progress
from ..oxen.request import AspectRatio, EditParameters, OutputFormat, member_of
from ..oxen.session import Session
from ..oxen.settings import load_settings
from ..oxen.uploads import SendAs, upload
from .inputs import IfSomeFail, Result

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
    return Account(find_account(host.user_folder()).base_url, None)


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
        """The widgets' values, checked; raises InvalidParameters."""
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
            send = partial(_input_image, session, pixels, self.send_as)
            for _ in range(self.variations):
                parameters = self.parameters.with_seed(self.parameters.seed + len(edits))
                edits.append(Edit(parameters, digest(pixels), send))
        return edits


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
    outcomes: Sequence[Outcome[DecodedImage]],
    progress: Progress,
    *,
    if_some_fail: IfSomeFail = IfSomeFail.STOP,
    size_sent: str | None = None,
    send_as: SendAs | None = None,
) -> Gathered:
    """The pictures that came, stacked at the first one's size, and what there is to know about them.

    Raises the error of a single edit, or SomeFailed for a batch, unless `if_some_fail` says to go on and there is
    something to go on with. What succeeded is in the ledger either way.
    """
    failed = {number: o.error for number, o in enumerate(outcomes, 1) if o.error is not None}
    pictures = [o.picture for o in outcomes if o.picture is not None]
    if failed and (not pictures or if_some_fail is IfSomeFail.STOP):
        raise _failure(failed, len(outcomes), send_as)
    stacked = to_tensors(pictures)
    succeeded = [number for number, o in enumerate(outcomes, 1) if o.picture is not None]
    edits = []
    for place, number in enumerate(succeeded):
        outcome = outcomes[number - 1]
        edits.append(_told(number, outcome, size_sent, resized=place in stacked.resized))
    info: dict[str, Any] = {"edits": edits, "seconds": round(progress.seconds, 2)}
    costs = [o.record.cost for o in outcomes if o.record is not None and o.record.cost is not None]
    if costs:
        info["cost_usd"] = float(sum(costs))
    if failed:
        info["failed"] = [{"edit": number, "error": str(error)} for number, error in failed.items()]
    if stacked.resized:
        height, width = stacked.image.shape[1:3]
        which = ", ".join(str(succeeded[place]) for place in stacked.resized)
        info["note"] = f"The results differ in size; number {which} brought to {width}x{height}, the first one's size."
    return Gathered(stacked.image, json.dumps(info, indent=2))


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


def _failure(failed: dict[int, OxenError], count: int, send_as: SendAs | None) -> OxenError:
    first = next(iter(failed.values()))
    advice = ""
    could_be_the_uri = isinstance(first, Upstream) or "for url" in str(first)
    if could_be_the_uri and send_as in {SendAs.AUTO, SendAs.DATA_URI}:
        advice = " If it keeps happening, the service may refuse pictures in the request: set send_as to Oxen upload."
    if count == 1:
        return first.reworded(first.message + advice)
    if len({str(error) for error in failed.values()}) == 1 and len(failed) == count:
        return first.reworded(f"All {count} edits failed: {first.message}{advice}")
    named = " ".join(f"Edit {number}: {error}" for number, error in failed.items())
    kept = count - len(failed)
    return SomeFailed(
        f"{len(failed)} of {count} edits failed. {named} The other {kept} are kept: run again and only what failed is "
        f"paid for, or set if_some_fail to go on with what succeeded.{advice}"
    )


def listed(text: str) -> tuple[str, ...]:
    """The entries of a text with one a line (or separated by blanks or commas), in order, each once."""
    return tuple(dict.fromkeys(text.replace(",", " ").split()))
