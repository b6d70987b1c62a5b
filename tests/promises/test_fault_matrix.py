"""The fault matrix: whatever goes wrong, and whenever a run is stopped, the picture comes and is paid once."""

from __future__ import annotations

from pathlib import Path

import pytest
from fault_cells import BEFORE, HUNG, STOPS, Mode
from fault_rows import all_cells, chosen_cells
from kontext_bridge.standin.faults import NAMES
from matrix_runner import KEY, PIECE, Result, files_with_a_piece, run_shards, table


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory, tables: dict[str, list[str]]) -> list[Result]:
    found = run_shards(tmp_path_factory.mktemp("matrix"))
    tables["fault matrix"] = table(found)
    return found


def test_no_cell_loses_a_picture_or_is_billed_twice(results: list[Result]) -> None:
    broken = [f"{result.cell}: {'; '.join(result.problems)}" for result in results if result.problems]
    assert not broken, "\n".join(broken)
    assert len(results) == len(list(chosen_cells())) >= 1200


def test_every_switch_really_misbehaved_in_the_matrix(results: list[Result]) -> None:
    shown = {result.fault for result in results if result.shown}
    # The client asks for base64 only, so that the service cannot send base64 where a url was asked for.
    assert set(NAMES) - shown == {"b64_though_url"}


def test_runs_were_stopped_at_every_stage_in_every_mode(results: list[Result]) -> None:
    stopped = {(result.mode, result.stage, result.action) for result in results if result.reached and result.action}
    assert stopped == {(cell.mode.value, cell.stage, cell.action.value) for cell in chosen_cells() if cell.action}
    assert stopped >= {(cell.mode.value, cell.stage, cell.action.value) for cell in all_cells() if cell.action in STOPS}


def test_without_doubt_only_a_blocking_request_that_is_listed_nowhere_is_paid_anew_on_demand(
    results: list[Result],
) -> None:
    asked = [result for result in results if result.outcome == "asked anew" and not result.may_ask]
    assert {result.mode for result in asked} == {Mode.BLOCKING.value}
    # where a request hung, another edit follows in the same run, on a bill of its own
    twice = [result for result in asked if result.stage != HUNG and result.billed - result.void > 1]
    # Cut off before its answer, at a service that leaves such edits out of its lists.
    assert twice and {result.fault for result in twice} == {"history_without_sync"}
    assert all(result.stage != BEFORE.name and result.action is not None for result in twice)


def test_a_piece_of_the_key_in_a_file_is_found(tmp_path: Path) -> None:
    for name, text in {"whole": KEY, "piece": f"x{KEY[20 : 20 + PIECE]}y", "less": KEY[20 : 20 + PIECE - 1]}.items():
        (tmp_path / name).write_text(text)
    assert [path.name for path in files_with_a_piece(tmp_path)] == ["piece", "whole"]
