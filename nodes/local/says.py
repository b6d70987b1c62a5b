"""What a local node says of itself, in one line: what it is doing, and at the end how it ended."""

from __future__ import annotations

import time
from types import TracebackType

from ... import host
from ...editing.short import in_short

LOADING = "loading the model"


class Says:
    """The line of the node that is being run, for the length of a with block; off ComfyUI nobody hears it."""

    def __init__(self) -> None:
        self._voice = host.Voice()
        self._since = time.monotonic()
        self._edits = 1

    def of(self, edits: int) -> None:
        """How many edits the node makes."""
        self._edits = edits

    def doing(self, what: str) -> None:
        self._voice.say(what)

    def step(self, done: int, step: int, steps: int) -> None:
        """`step` of `steps` is through, of the edit after `done` others; said a few times a second at most."""
        which = f"edit {done + 1} of {self._edits} · " if self._edits > 1 else ""
        self._voice.murmur(f"{which}step {step} of {steps}")

    def __enter__(self) -> Says:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._voice.say(f"done · {time.monotonic() - self._since:.0f} s")
        elif host.is_interruption(error):
            self._voice.say("cancelled")
        else:
            self._voice.say(in_short(str(error)) or type(error).__name__)
