"""Blocking work beside the event loop: on a thread of its own, in its turn, its status shown, ended by Cancel."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

from . import turns
from .comfyui import executing_node, interrupted, interruption, move_bar
from .voice import Voice

T = TypeVar("T")

_TICK = 0.1
_WATCH_TICK = 0.05
# For the work to end by itself once Cancel was pressed; a busy machine takes as long again for all else.
_GRACE = 0.4


class Stoppable(Protocol):
    """Work that can be stopped: `interrupt` is the artist's Cancel, `detach` only stops waiting."""

    def interrupt(self) -> None: ...

    def detach(self) -> None: ...


class HowFar(Protocol):
    """How far work is: `fraction` 0 to 1, and one line of text."""

    @property
    def fraction(self) -> float: ...

    @property
    def text(self) -> str: ...


class NoThread(Exception):
    """The system gives no thread for the work, which was not begun."""

    __module__ = "kontext_bridge"


async def run_off_loop(
    work: Callable[[], T],
    control: Stoppable,
    *,
    status: HowFar | None = None,
    node_id: str | None = None,
    load: int = 1,
    is_last: Callable[[], bool] = lambda: True,
) -> T:
    """Run blocking `work` on a thread of its own, when its turn has come, and show its `status` until it ends.

    load: how many things the work does at once, for `turns`. is_last: asked at the end, whether all else that `status`
    tells of has ended, so that the bar is full. What became of it all is for the caller to say.
    Cancel interrupts `control` and ends this call within a second, whether or not `work` is through with its
    cleaning up by then. When ComfyUI drops the node for another reason, `control` is only detached.
    Raises NoThread, and what `work` raises.
    """
    with _watch(control) as stop:
        try:
            async with turns.of_this_loop().turn(executing_node() if node_id is None else node_id, load, stop.pressed):
                if stop.is_set:
                    raise interruption()
                outcome = _start(work)
                await _follow(outcome, stop, status, node_id)
        except asyncio.CancelledError:
            if not stop.is_set:
                control.detach()
            raise
    if status is not None:
        whole = outcome.exception() is None and is_last()
        await move_bar(node_id, 1.0 if whole else min(status.fraction, 0.99))
    return outcome.result()


async def _follow(outcome: asyncio.Future[T], stop: _Stop, status: HowFar | None, node_id: str | None) -> None:
    """Wait for an outcome and show how far it is; raises what stands for Cancel soon after it was pressed."""
    shown = (-1.0, "")
    voice = Voice(node_id) if node_id is not None else None
    events: set[asyncio.Future[Any]] = {outcome, stop.pressed}
    while not outcome.done():
        if status is not None:
            now = (min(status.fraction, 0.99), status.text)
            if now != shown and voice is not None:
                await move_bar(node_id, now[0])
                voice.say(now[1])
                shown = now
        if stop.is_set:
            await asyncio.wait({outcome}, timeout=_GRACE)
            break
        await asyncio.wait(events, timeout=_TICK, return_when=asyncio.FIRST_COMPLETED)
    if stop.is_set:
        raise interruption()


def _start(work: Callable[[], T]) -> asyncio.Future[T]:
    """Start `work` on a daemon thread, in a copy of this context; its outcome, dropped if nobody is left to take it."""
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[T] = loop.create_future()
    context = contextvars.copy_context()

    def settle(result: T | None, error: BaseException | None) -> None:
        if outcome.done():
            return
        if error is not None:
            outcome.set_exception(error)
        else:
            outcome.set_result(result)  # type: ignore[arg-type]

    def call() -> None:
        result: T | None = None
        error: BaseException | None = None
        try:
            result = context.run(work)
        except BaseException as raised:  # handed to the node, which raises it
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop of a run that was stopped is closed
            loop.call_soon_threadsafe(settle, result, error)

    # an outcome that comes after the node was dropped is nobody's: its error is not worth a warning
    outcome.add_done_callback(lambda done: done.cancelled() or done.exception())
    _start_thread(call, "kontext-bridge run")
    return outcome


def _start_thread(target: Callable[[], None], name: str) -> None:
    try:
        threading.Thread(target=target, name=name, daemon=True).start()
    except RuntimeError:
        raise NoThread(
            "The system gives ComfyUI no further thread, so nothing was sent. Close what else is running, or restart "
            "ComfyUI, then run again."
        ) from None


class _Stop:
    """Whether Cancel was pressed, for a thread and for an event loop; the loop is woken by `pressed`."""

    def __init__(self, control: Stoppable) -> None:
        self.is_set = False
        self._control = control
        self._loop = asyncio.get_running_loop()
        self.pressed: asyncio.Future[None] = self._loop.create_future()

    def press(self) -> None:
        """Stop the work and wake whoever waits for it; from any thread, and as often as it comes."""
        self._control.interrupt()
        if not self.is_set:
            self.is_set = True
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        if not self.pressed.done():
            self.pressed.set_result(None)


_watched: set[_Stop] = set()
_watch_guard = threading.Lock()


@contextlib.contextmanager
def _watch(control: Stoppable) -> Iterator[_Stop]:
    """Interrupt `control` as soon as Cancel is pressed, also while other nodes block the event loop.

    One thread looks for all nodes at once: ComfyUI clears its flag when the first node has raised, and the
    others would never learn of it.
    """
    stop = _Stop(control)
    with _watch_guard:
        first = not _watched
        if first:
            _start_thread(_look_out, "kontext-bridge watch")
        _watched.add(stop)
    try:
        yield stop
    finally:
        with _watch_guard:
            _watched.discard(stop)


def _look_out() -> None:
    pause = threading.Event()
    while True:
        with _watch_guard:
            if not _watched:
                return
            if interrupted():
                for stop in _watched:
                    stop.press()
        pause.wait(_WATCH_TICK)
