"""What the main thread of a page works for each frame, by Chromium's own trace: processor time, not the clock's.

A machine that is busy elsewhere makes a frame late and not its work longer, so that this can be held to a bound.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

CATEGORIES = ("devtools.timeline", "disabled-by-default-devtools.timeline")


@dataclass(frozen=True)
class Frames:
    """work: by frame, in ms of processor time, all that the thread did since the one before. layouts: of all frames."""

    work: tuple[float, ...]
    layouts: int

    @property
    def usual(self) -> float:
        return median(self.work)

    @property
    def long(self) -> float:
        """The longest but for one in fifty, which may hold the collection of the page's garbage."""
        return sorted(self.work)[int(len(self.work) * 0.98)]

    def __str__(self) -> str:
        layouts = self.layouts / len(self.work)
        return f"{self.usual:.1f} ms a frame, {self.long:.1f} in a long one, {layouts:.2f} layouts"


def frames_of(events: Sequence[dict[str, Any]]) -> Frames:
    """From a trace of CATEGORIES: the page is the one that brought most frames to the screen."""
    timed = [event for event in events if event["ph"] == "X"]
    commits = Counter((event["pid"], event["tid"]) for event in timed if event["name"] == "Commit")
    (page, _), *_ = commits.most_common(1)
    own = sorted((event for event in timed if (event["pid"], event["tid"]) == page), key=lambda event: event["ts"])
    ends = [event["ts"] for event in own if event["name"] == "Commit"]
    work, since = [], 0.0
    for task in own:
        if task["name"] != "RunTask":
            continue
        since += task.get("tdur", 0) / 1000
        if ends and ends[0] < task["ts"] + task["dur"]:
            work.append(since)
            since = 0.0
            ends = [end for end in ends if end >= task["ts"] + task["dur"]]
    return Frames(tuple(work), sum(event["name"] == "Layout" for event in own))
