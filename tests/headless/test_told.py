from __future__ import annotations

import io
import re

import pytest
from kontext_bridge.headless.told import TerminalReport


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    def screen(self) -> list[str]:
        """What stands on the screen, by the two movements a report makes."""
        lines: list[str] = []
        for part in re.split(r"(\x1b\[\d+F\x1b\[J)", self.getvalue()):
            if up := re.fullmatch(r"\x1b\[(\d+)F\x1b\[J", part):
                del lines[-int(up[1]) :]
            else:
                lines += part.splitlines()
        return lines


def test_each_running_node_has_one_line_with_a_bar() -> None:
    terminal = Terminal()
    report = TerminalReport(terminal)
    report.started("1", "KontextEdit")
    report.started("2", "KontextEdit")
    report.progress("1", 1, 2)
    report.text("2", "queued\nfor 3 s")
    assert terminal.screen() == ["1 KontextEdit  [############............]  50%", "2 KontextEdit  queued for 3 s"]


def test_a_finished_node_stays_above_those_that_run() -> None:
    terminal = Terminal()
    report = TerminalReport(terminal)
    report.started("1", "A")
    report.started("2", "B")
    report.finished("2", 1.25)
    report.text("1", "still here")
    report.close()
    assert terminal.screen() == ["2 B: done in 1.2 s", "1 A: still here"]


@pytest.mark.parametrize(("value", "shown"), [(-1, "0%"), (3, "100%")])
def test_progress_outside_its_range_does_not_break_the_bar(value: float, shown: str) -> None:
    terminal = Terminal()
    report = TerminalReport(terminal)
    report.started("1", "A")
    report.progress("1", value, 2)
    assert terminal.screen()[0].endswith(f"] {shown:>4}")


def test_a_log_file_gets_plain_lines_and_not_one_for_every_step() -> None:
    log = io.StringIO()
    report = TerminalReport(log)
    report.started("1", "A")
    for step in range(1000):
        report.progress("1", step, 1000)
    report.finished("1", 3.0)
    lines = log.getvalue().splitlines()
    assert lines[0] == "1 A: running" and lines[-1] == "1 A: done in 3.0 s"
    assert len(lines) < 10 and "\x1b" not in log.getvalue()


def test_news_of_a_node_that_is_not_running_is_left_out() -> None:
    log = io.StringIO()
    report = TerminalReport(log)
    report.progress("9", 1, 2)
    report.text("9", "late")
    report.close()
    assert log.getvalue() == ""


def test_what_a_node_says_last_stands_in_a_log_file_too_however_soon_it_came() -> None:
    log = io.StringIO()
    report = TerminalReport(log)
    report.started("1", "A")
    report.text("1", "sending")
    report.text("1", "done · 9 s · $0.04")
    report.finished("1", 9.0)
    report.started("2", "B")
    report.text("2", "No Oxen.ai key")
    report.close()
    assert log.getvalue().splitlines() == [
        "1 A: running",
        "1 A: done · 9 s · $0.04",
        "2 B: running",
        "2 B: No Oxen.ai key",
    ]
