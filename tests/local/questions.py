"""Questions to a real ComfyUI: functions that stand beside the tests that hold their answers to something.

A question runs in ComfyUI's own Python. `answering.py` imports the test module there once more, where INSIDE is true,
and `inside.py` has what questions are made of. So a question may use what its module imports under `if INSIDE:`, takes
nothing, and gives what JSON can say.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

INSIDE = "inside" in sys.modules
FP8 = "--supports-fp8-compute"
# fp32 against fp32, after a few steps
SAME = 1e-5
Question = Callable[[], Any]
Ask = Callable[..., Any]


def question(function: Question) -> Question:
    """Says that a function is to be run inside ComfyUI, by `ask`."""
    return function


class Answering:
    """ComfyUIs that answer, one for each set of its options, started with the first question to it."""

    def __init__(self, command: list[str], folder: Path, environment: dict[str, str], stack: ExitStack) -> None:
        self._command = command
        self._folder = folder
        self._environment = environment
        self._stack = stack
        self._started: dict[tuple[str, ...], subprocess.Popen[str]] = {}
        self._known: dict[tuple[Question, tuple[str, ...]], Any] = {}

    def ask(self, asked: Question, *options: str) -> Any:
        """The answer, worked out once however many tests look at it."""
        if (asked, options) not in self._known:
            self._known[asked, options] = self._answer(asked, options)
        return self._known[asked, options]

    def _answer(self, asked: Question, options: tuple[str, ...]) -> Any:
        process = self._process(options)
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps([asked.__globals__["__file__"], asked.__name__]) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        assert line, f"ComfyUI ended:\n{self._log(options).read_text(errors='replace')[-4000:]}"
        told = json.loads(line)
        assert "error" not in told, told["error"]
        return told["answer"]

    def _process(self, options: tuple[str, ...]) -> subprocess.Popen[str]:
        if options not in self._started:
            log = self._stack.enter_context(self._log(options).open("wb"))
            self._started[options] = self._stack.enter_context(
                subprocess.Popen(
                    [*self._command, *options],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    cwd=self._folder,
                    env=self._environment,
                )
            )
        return self._started[options]

    def _log(self, options: tuple[str, ...]) -> Path:
        return self._folder / f"answering{''.join(options)}.log"
