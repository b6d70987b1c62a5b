"""The items of a list: ComfyUI runs a node once for each, all at once, and tells none of the others.

Here they find each other: one bar for all, one line that says at the end what became of them all, one report that names
every item that failed, and an end for those not yet sent where none can succeed.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from typing import TypeAlias
from weakref import WeakKeyDictionary

from ... import host
from ...imaging.errors import ImageError
from ...oxen.errors import OxenError, SomeFailed, about
from ...oxen.jobs.batch import HOPELESS
from ...oxen.jobs.progress import Progress, Together
from .anew import Asked

Failure: TypeAlias = "OxenError | ImageError"

_NAMED = 8


class Item:
    """One run of a node, for an item of a list or alone.

    number: which of the list, counted from 1. name: says to people which it is. progress: of the whole list.
    hopeless: holds the error that no item can escape, once there is one. asked: what all of them ask for.
    """

    def __init__(self, group: _Group, number: int) -> None:
        self._group = group
        self.number = number
        self.name = str(number)
        self.progress = group.progress
        self.hopeless = group.hopeless
        self.asked = group.asked
        self.failure: Failure | None = None
        self.ended = False
        self._own: Progress | None = None

    async def all_here(self) -> None:
        """Wait until the host has begun with all items."""
        await self._group.all_here()

    def begun(self, progress: Progress) -> Progress:
        """How far its own edits are; gives it back."""
        self._own = progress
        return progress

    def went_wrong(self, error: Exception) -> None:
        """Have the node's line say at the end that this item was ended by an error."""
        (self.progress if self._own is None else self._own).failed(error)

    def left_over(self) -> None:
        """Have the node's line say what is known now: a run that was stopped has done all that it had still to do."""
        self._group.say_again()

    def is_alone(self) -> bool:
        """Whether there is no list, as far as is known."""
        return len(self._group.items) == 1

    def is_last(self) -> bool:
        """Whether all others have ended, and well."""
        return all(one.ended and one.failure is None for one in self._group.items if one is not self)

    async def failed(self, failure: Failure) -> Failed | None:
        """What became of the list, once no item of it is under way any more; None where there is no list.

        Raises what stands for Cancel where the run was stopped meanwhile.
        """
        group = self._group
        self.failure = failure
        self.went_wrong(failure)
        if isinstance(failure, HOPELESS):
            group.hopeless.append(failure)
        await group.all_here()
        await group.all_ended()
        if group.stopped:
            raise host.interruption()
        return Failed(group.items, self) if len(group.items) > 1 else None


class _Group:
    def __init__(self, node_id: str | None) -> None:
        self._voice = None if node_id is None else host.Voice(node_id)
        self._speaks = threading.Lock()
        self.cancelled = False
        self.items: list[Item] = []
        self.hopeless: list[OxenError] = []
        self.asked = Asked()
        self.progress = Together()
        self.stopped = False
        self._settled = asyncio.Event()

    async def all_here(self) -> None:
        """Let the host begin with the other items: it begins with one each time that the event loop goes round."""
        seen = 0
        while seen != len(self.items):
            seen = len(self.items)
            for _ in range(3):
                await asyncio.sleep(0)

    async def all_ended(self) -> None:
        self.look()
        await self._settled.wait()

    def look(self) -> None:
        """Tell those who wait where every item has ended, or has failed and waits itself."""
        if all(one.ended or one.failure is not None for one in self.items) and not self._settled.is_set():
            self._settled.set()
            self.say_again()

    def say_again(self) -> None:
        """Say what became of the whole list, once that is settled; from any thread."""
        with self._speaks:
            if self._voice is None or not self._settled.is_set():
                return
            if self.stopped:
                self._voice.say(self.progress.stopped_text(cancelled=self.cancelled))
            else:
                self._voice.say(self.progress.last_text())


_groups: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, str | None], _Group]] = WeakKeyDictionary()


@contextlib.asynccontextmanager
async def item(node_id: str | None) -> AsyncIterator[Item]:
    """Be one of the items that the host runs this node for, for the length of a with block.

    Nothing is raised before the host has had the chance to begin with the next: it would never do so.
    """
    groups = _groups.setdefault(asyncio.get_running_loop(), {})
    key = (host.run_id(), node_id)
    group = groups.get(key)
    if group is None:
        group = groups[key] = _Group(node_id)
    element = host.element()
    mine = Item(group, len(group.items) + 1 if element is None else element + 1)
    group.items.append(mine)
    try:
        await asyncio.sleep(0)
        yield mine
    except BaseException as error:
        group.stopped = group.stopped or host.is_interruption(error)
        group.cancelled = group.cancelled or (group.stopped and not isinstance(error, asyncio.CancelledError))
        if isinstance(error, Exception) and mine.failure is None and not group.stopped:
            mine.went_wrong(error)
        raise
    finally:
        mine.ended = True
        group.look()
        if all(one.ended for one in group.items) and groups.get(key) is group:
            del groups[key]


class Failed:
    """What became of a list of which some items, or all, failed, as one of the failed sees it."""

    def __init__(self, items: list[Item], mine: Item) -> None:
        self._items = sorted(items, key=lambda one: one.number)
        self._failed = [one for one in self._items if one.failure is not None]
        self.kept = len(self._items) - len(self._failed)
        self.tells = mine is self._failed[0]

    @property
    def failures(self) -> list[Failure]:
        return [one.failure for one in self._failed if one.failure is not None]

    def error(self, again: str) -> Failure:
        """The one error of all. again: what to do for the failed items."""
        first = self._failed[0].failure
        assert first is not None
        reasons = self._reasons()
        if not self.kept and len(reasons) == 1:
            text = f"All {len(self._items)} items of the list failed: {next(iter(reasons))}"
            return first.reworded(text) if isinstance(first, OxenError) else type(first)(text)
        if not self.kept:
            return SomeFailed(self.text)
        verb = "is" if self.kept == 1 else "are"
        return SomeFailed(
            f"{self.text} The other {self.kept} {verb} kept: {again}, or set if_some_fail to go on with what succeeded."
        )

    @property
    def text(self) -> str:
        """Which items failed, and why."""
        count = f"{len(self._failed)} of {len(self._items)}" if self.kept else f"All {len(self._items)}"
        told = " ".join(f"{_listed(names)}: {reason}" for reason, names in self._reasons().items())
        return f"{count} items of the list failed. {told}"

    def _reasons(self) -> dict[str, list[str]]:
        """The names of the failed items by the reason why they failed."""
        names: dict[str, list[str]] = {}
        ids: dict[str, list[str]] = {}
        for one in self._failed:
            reason = one.failure.message if isinstance(one.failure, OxenError) else str(one.failure)
            if self.kept:  # of the others something was
                reason = reason.replace("Nothing was sent.", "It was not sent.")
            names.setdefault(reason, []).append(one.name)
            ids.setdefault(reason, []).extend(one.failure.not_named if isinstance(one.failure, OxenError) else [])
        return {about(reason, ids[reason]): names[reason] for reason in names}


def _listed(names: list[str]) -> str:
    if len(names) == 1:
        return f"Item {names[0]}"
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"Items {', '.join(names[:_NAMED])}{more}"
