"""Keeping a model of one's own awake for as long as it is needed: it is billed by the hour while it is.

Nothing is woken that the artist has not allowed; several runs at once, of whichever process, wake it once; it is put to
sleep by the last of them, and only where one of them woke it. That somebody did is noted before the request to wake it
is sent, so that a run which is killed leaves a trace: the next run, or Kontext Models, finds it and can end the cost.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..api.client import Client
from ..api.own_models import Deployment, OwnModel, activate, deactivate, is_kontext, look_at
from ..control import Control, Deadline
from ..errors import (
    ConnectionFailed,
    Interrupted,
    ModelAsleep,
    OutcomeUnknown,
    OxenError,
    RateLimited,
    SpendLimitReached,
    UnexpectedReply,
    Upstream,
)
from ..private_files import replace_file
from ..settings import Settings
from .locks import hold, is_held

logger = logging.getLogger(__name__)

FOLDER = "awake"
# The service's documents speak of two to five minutes.
LONGEST_WAIT = 900.0
# How long a model may still be told to be asleep, or to have failed before, once it was asked to wake.
SETTLE_SECONDS = 60.0
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 5.0
_OUTAGE_SECONDS = 90.0
_LOOK_SECONDS = 30.0
# How long it is tried to put a model to sleep: one that is waking may not take it before it is awake.
_SLEEP_SECONDS = 420.0
# For jobs that have just been cancelled.
_BUSY_SECONDS = 3.0
_ASLEEP = (Deployment.INACTIVE, Deployment.DEACTIVATING)
_PASSES = (ConnectionFailed, Upstream, UnexpectedReply, RateLimited)
END_IT = "End that with Kontext Models (put it to sleep), or on its page at Oxen.ai."


@dataclass(frozen=True)
class Rule:
    """What the artist decided: the model's id, whether it may be woken, whether it is put to sleep afterwards."""

    model: str
    wakes: bool = False
    sleeps: bool = True


class WakingNotes:
    """Which models were woken from this machine, one small file each."""

    def __init__(self, home: Path, base_url: str, model: str) -> None:
        self.folder = home / FOLDER
        self.name = hashlib.sha256(f"{base_url} {model.removeprefix('oxen:')}".encode()).hexdigest()[:32]
        self._model = model
        self._path = self.folder / f"{self.name}.json"

    def read(self) -> dict[str, Any] | None:
        """When it was woken, and whether a run asked for it to be put to sleep; None where nobody here woke it."""
        try:
            said = json.loads(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError):  # there is one, and it cannot be read: somebody did
            return {}
        return said if isinstance(said, dict) else {}

    def write(self, **said: Any) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        replace_file(self._path, json.dumps({"model": self._model, **said}).encode())

    def remove(self) -> None:
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def woken_lately(self) -> bool:
        at = (self.read() or {}).get("woken_at")
        return isinstance(at, int | float) and 0 <= time.time() - at < SETTLE_SECONDS


class Need:
    """Says to other runs that a model is needed, from the moment that this is made until `release`.

    The items of a list each make theirs before the first begins, so that the model stays awake between them.
    """

    def __init__(self, notes: WakingNotes) -> None:
        self._notes = notes
        self._name = f"{notes.name}-{uuid.uuid4().hex}"
        self._held = contextlib.ExitStack()
        self._held.enter_context(hold(notes.folder, self._name, Control()))

    def release(self) -> None:
        self._held.close()

    def others(self) -> bool:
        """Whether somebody else needs the model; traces of runs that were killed are removed."""
        found = False
        for path in self._notes.folder.glob(f"{self._notes.name}-*.lock"):
            if path.stem == self._name:
                continue
            with contextlib.suppress(OSError):
                if is_held(self._notes.folder, path.stem):
                    found = True
                else:
                    path.unlink(missing_ok=True)
        return found


def check_limits(settings: Settings, id: str, price: str) -> None:
    """Raises SpendLimitReached where a limit is set: of what is billed by time none can be kept."""
    if settings.usd_per_run is not None or settings.usd_per_day is not None:
        raise SpendLimitReached(
            f"A spend limit is set, and {id} is billed by time, {price}: what a run with it costs is not known before, "
            "so that the limit cannot be kept. It was not woken, nothing was sent. Remove the limit (usd_per_run, "
            "usd_per_day) to go on without one."
        )


class Awake:
    """One run's part in a model's being awake: `wake` before its first request, `leave` after its last.

    say: is told what is done, in a few words, and None where nothing is. told: for info. left: a sentence for the
    artist where the model goes on costing money against what was asked for; empty otherwise.
    """

    def __init__(
        self,
        client: Client,
        home: Path,
        settings: Settings,
        rule: Rule,
        claim: Need | None = None,
        say: Callable[[str | None], None] = lambda _: None,
    ) -> None:
        self._client = client
        self._settings = settings
        self._rule = rule
        self._notes = WakingNotes(home, client.account.base_url, rule.model)
        self._claim = claim or Need(self._notes)
        self._say = say
        self._price = ""
        self._came = self._gone = False
        self._seen_moving = False
        self.told: dict[str, Any] = {}
        self.left = ""

    def wake(self) -> None:
        """Return once the model is awake.

        Raises ModelAsleep where it is not and may not be woken, failed to wake, or took too long; SpendLimitReached;
        what the requests raise; Interrupted.
        """
        self._came = True
        try:
            model = self._begun()
            if model.state is not Deployment.ACTIVE:
                self._wait(model)
        finally:
            self._say(None)
        self.told["state"] = "awake"

    @property
    def afterword(self) -> str:
        """What an error is to say of the model besides; empty where there is nothing to say."""
        slept = self.told.get("state") == "put to sleep" and self.told.get("woken")
        return f"{self._rule.model} was put to sleep." if slept else self.left

    def leave(self) -> None:
        """Put the model to sleep where that is due, once; never raises, and is not ended by Cancel."""
        if self._gone:
            return
        self._gone = True
        try:
            if not self._came and self._notes.read() is None:
                return
            self._leave(self._client.for_cleanup())
        except OxenError as error:
            self._costs_on(str(error))
        finally:
            self._claim.release()
            self._say(None)

    def _begun(self) -> OwnModel:
        """The model, awake or on its way."""
        patience = Deadline(LONGEST_WAIT)
        self._say(f"looking whether {self._rule.model} is awake")
        while True:
            with hold(self._notes.folder, self._notes.name, self._client.control, patience):
                model = look_at(self._client, self._rule.model)
                self._check(model)
                if model.state in (Deployment.ACTIVE, Deployment.DEPLOYING):
                    self._seen_moving = True
                    return model
                if self._notes.woken_lately():
                    return model  # another run has just asked for it
                self._check_allowed(model)
                if model.state is not Deployment.DEACTIVATING:
                    return self._asked_to_wake(model)
            if patience.passed:
                raise ModelAsleep(
                    f"{model.id} is falling asleep, and was not done with it after {LONGEST_WAIT / 60:.0f} minutes. "
                    "Nothing was woken, no edit was sent. Run again later."
                )
            self._say(f"{model.id} is falling asleep; it is woken after that")
            self._client.control.sleep(_FIRST_PAUSE)

    def _check(self, model: OwnModel) -> None:
        self._price = model.price
        per_hour = model.usd_per_hour
        self.told |= {"cost_per_hour": "not known"} if per_hour is None else {"usd_per_hour": float(per_hour)}
        if model.base and not is_kontext(model.base):
            raise ModelAsleep(
                f"{model.id} was trained from {model.base}, and not from FLUX.1 Kontext [dev], so that it has other "
                "inputs. No edit was sent, nothing was woken. Choose a fine-tune of Kontext."
            )
        self.told["base"] = model.base or "not told by Oxen.ai"

    def _check_allowed(self, model: OwnModel) -> None:
        if not self._rule.wakes:
            raise ModelAsleep(
                f"{model.id} is {model.state.word}. Awake it runs {model.price}, from waking until it sleeps again, "
                "waking included as far as is known. It was not woken, no edit was sent, nothing was charged. To wake "
                "it, set if_asleep to wake it; to see all your models, use Kontext Models."
            )
        check_limits(self._settings, model.id, model.price)

    def _asked_to_wake(self, model: OwnModel) -> OwnModel:
        """Ask for it, once; where the answer is lost, what it looks like from now on decides."""
        self._say(f"waking {model.id}: {model.price} from now on")
        self._notes.write(woken_at=time.time())
        self.told["woken"] = True
        try:
            activate(self._client, model.id)
        except OxenError as error:
            may_be = isinstance(error, OutcomeUnknown) or (isinstance(error, _PASSES) and not error.definite)
            if not may_be or (isinstance(error, ConnectionFailed) and error.status is None):
                self._notes.remove()
                self.told.pop("woken")
                raise error.reworded(f"{model.id} could not be woken: {error.message} No edit was sent.") from None
            logger.info("Whether %s was woken is not known: %s", model.id, error)
        return model

    def _wait(self, model: OwnModel) -> None:
        """Until it is awake, as the service tells it: the answer to waking it says little."""
        bound, settled = Deadline(LONGEST_WAIT), Deadline(SETTLE_SECONDS)
        failing: Deadline | None = None
        pause = _FIRST_PAUSE
        since = time.monotonic()
        while True:
            self._say(f"waking {model.id}: {self._price} · {time.monotonic() - since:.0f} s of some minutes")
            self._client.control.sleep(min(pause, bound.left))
            pause = min(pause * 1.3, _LONGEST_PAUSE)
            try:
                now = look_at(self._client, self._rule.model, within=_LOOK_SECONDS)
                failing = None
            except _PASSES as error:
                failing = failing or Deadline(_OUTAGE_SECONDS)
                if failing.passed or bound.passed:
                    raise self._lost_sight(model, error) from None
                continue
            if now.state is Deployment.ACTIVE:
                self._seen_moving = True
                return
            moved = self._seen_moving = self._seen_moving or now.state is Deployment.DEPLOYING
            if now.state is Deployment.ERROR and (moved or settled.passed):
                raise ModelAsleep(
                    f"{model.id} failed to wake: Oxen.ai tells its deployment as an error, and says no more. No edit "
                    "was sent. Whether the time was billed is not known; look at its page there."
                )
            if now.state in _ASLEEP and (moved or settled.passed):
                what = "fell asleep again before it was awake" if moved else "was asked to wake, and sleeps on"
                raise ModelAsleep(f"{model.id} {what}. No edit was sent. Run again to try once more.")
            if bound.passed:
                raise ModelAsleep(
                    f"{model.id} was not awake after {LONGEST_WAIT / 60:.0f} minutes. No edit was sent. It may cost "
                    f"{self._price} all the same."
                )

    def _lost_sight(self, model: OwnModel, error: OxenError) -> OxenError:
        return error.reworded(
            f"{model.id} was being woken, and Oxen.ai could not be asked any more whether it is awake: {error.message} "
            "No edit was sent."
        )

    def _leave(self, client: Client) -> None:
        with hold(self._notes.folder, self._notes.name, client.control, Deadline(_LOOK_SECONDS)):
            note = self._notes.read()
            if note is None:
                if self._came and self.told.get("state") == "awake":
                    self.told["state"] = "left awake, as it was before this run"
                return
            wished = self._rule.sleeps or bool(note.get("sleeps"))
            if self._claim.others():
                self._notes.write(**{**note, "sleeps": wished})
                self.told["state"] = "awake: another run here needs it" + (", and puts it to sleep" if wished else "")
                return
            if not wished:
                self.told["state"] = f"left awake, at {self._price or 'a cost per hour'}"
                return
            self._say(f"putting {self._rule.model} to sleep")
            if busy := self._busy(client):
                self._costs_on(f"{busy} with it still there, which that would end")
                return
            self._put_to_sleep(client)

    def _busy(self, client: Client) -> str:
        """Which jobs of whomever the model still has; empty where none is known."""
        waits = Deadline(_BUSY_SECONDS)
        while True:
            try:
                rows = client.active(model=None).rows
            except OxenError as error:
                logger.info("Whether %s has jobs is not known: %s", self._rule.model, error)
                return ""
            bare = self._rule.model.removeprefix("oxen:")
            busy = [row for row in rows if row.model.removeprefix("oxen:") == bare and not row.status.terminal]
            if not busy or waits.passed:
                return f"{len(busy)} edit{'s' if len(busy) > 1 else ''}" if busy else ""
            client.control.sleep(0.5)

    def _put_to_sleep(self, client: Client) -> None:
        # what was asked to wake and was not seen to do so may be about to
        doubt = Deadline(0.0 if self._seen_moving or not self._notes.woken_lately() else SETTLE_SECONDS)
        error = put_to_sleep(client, self._rule.model, _SLEEP_SECONDS, doubt)
        if error is None:
            self._notes.remove()
            self.told["state"] = "put to sleep"
        else:
            self._costs_on(error)

    def _costs_on(self, why: str) -> None:
        self.told["state"] = "still awake"
        costs = f"It goes on costing {self._price}." if self._price else "It goes on costing by the hour."
        self.left = f"{self._rule.model} was not put to sleep: {why.rstrip('.')}. {costs} {END_IT}"
        logger.warning("%s", self.left)


def put_to_sleep(client: Client, id: str, seconds: float, doubt: Deadline | None = None) -> str | None:
    """Ask for a model to be put to sleep until the service tells it so; why it is not, None where it is.

    What is awake or waking is asked again, as often as that takes: asking costs nothing. doubt: until when a model that
    is told to be asleep may still be about to wake.
    """
    within, pause = Deadline(seconds), 0.5
    why = ""
    tries = 0
    while True:
        tries += 1
        try:
            model = look_at(client, id, within=_LOOK_SECONDS)
            if model.state not in _ASLEEP:
                model, doubt = deactivate(client, model.id), None
            if model.state in _ASLEEP and (doubt is None or doubt.passed):
                return None
            why = f"Oxen.ai took the request and tells it as {model.state.word}."
        except Interrupted:
            raise
        except OxenError as error:
            why = error.message
            refused = error.definite or not isinstance(error, (*_PASSES, OutcomeUnknown))
            if refused and tries > 2 and not _is_waking(client, id):
                return why
        if within.passed:
            return why
        client.control.sleep(min(pause, within.left))
        pause = min(pause * 2, _LONGEST_PAUSE)


def _is_waking(client: Client, id: str) -> bool:
    try:
        return look_at(client, id, within=_LOOK_SECONDS).state is Deployment.DEPLOYING
    except OxenError:
        return False
