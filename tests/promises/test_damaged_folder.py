"""A user folder that was damaged, emptied or closed between two runs: what was paid for is not paid again by itself."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kontext_bridge.standin import StandIn
from matrix_judge import DOCUMENTED
from matrix_runner import KEY, SHRINK, TIMING, Lane, new_job

MODES = ("polling", "blocking")
NOBODY = 65534


class House:
    """Runs of one edit, each in a process of its own, over one user folder."""

    def __init__(self, service: StandIn, lane: Lane, folder: Path, mode: str) -> None:
        self.service = service
        self.user = folder / "user"
        self.results = self.user / "results"
        self._folder, self._lane, self._mode = folder, lane, mode
        self._runs = 0

    @property
    def ledger(self) -> Path:
        return self.user / "ledger.sqlite3"

    def run(self, **changes: Any) -> dict[str, Any]:
        """What came of the edit; an error is one that the documents list."""
        self._runs += 1
        job = new_job(self.service, self._folder, self._runs, mode=self._mode, **changes)
        report = self._lane.start(job).report()
        assert "crash" not in report, report["crash"]
        (outcome,) = report["outcomes"]
        assert outcome.get("error", "Misconfigured") in DOCUMENTED
        return outcome

    def digests(self) -> set[str]:
        """Of the pictures that the service made."""
        return {hashlib.sha256(job.result).hexdigest() for job in self.service.jobs.values() if job.result}


@pytest.fixture(scope="module")
def lane() -> Iterator[Lane]:
    lane = Lane()
    yield lane
    lane.close()


@pytest.fixture(params=MODES)
def house(request: pytest.FixtureRequest, lane: Lane, tmp_path: Path) -> Iterator[House]:
    with StandIn(timing=TIMING, key=KEY, shrink=SHRINK) as service:
        yield House(service, lane, tmp_path, request.param)


def empty(house: House) -> None:
    house.ledger.write_bytes(b"")


def zero_the_second_half(house: House) -> None:
    data = house.ledger.read_bytes()
    house.ledger.write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))


def zero_the_first_half(house: House) -> None:
    data = house.ledger.read_bytes()
    house.ledger.write_bytes(bytes(len(data) // 2) + data[len(data) // 2 :])


def zero_all(house: House) -> None:
    house.ledger.write_bytes(bytes(house.ledger.stat().st_size))


def cut(house: House) -> None:
    data = house.ledger.read_bytes()
    house.ledger.write_bytes(data[: len(data) // 2])


def remove_ledger(house: House) -> None:
    house.ledger.unlink()


def remove_results(house: House) -> None:
    shutil.rmtree(house.results)


def empty_results(house: House) -> None:
    for path in house.results.iterdir():
        path.unlink()


def close_results(house: House) -> None:
    """Nobody who runs here may write into it, nor change that; its files can be read."""
    house.results.chmod(0o555)
    if os.geteuid() == 0:
        os.chown(house.results, NOBODY, NOBODY)


LEDGER_DAMAGE = (empty, zero_the_second_half, zero_the_first_half, zero_all, cut, remove_ledger)


@pytest.mark.parametrize("damage", LEDGER_DAMAGE, ids=lambda damage: damage.__name__)
def test_a_damaged_ledger_is_not_taken_for_a_new_one(house: House, damage: Callable[[House], None]) -> None:
    house.run()
    kept = {path.name: path.read_bytes() for path in house.results.iterdir()}
    damage(house)
    for _ in range(2):
        told = house.run()
        assert len(house.service.billed) == 1, told
        assert told.get("picture") in house.digests() or "ledger" in told["text"]
    assert {path.name: path.read_bytes() for path in house.results.iterdir()} == kept
    shutil.move(house.user, house.user.with_name("moved away"))
    assert house.run()["picture"] in house.digests()
    assert len(house.service.billed) == 2


@pytest.mark.parametrize("damage", [remove_results, empty_results, close_results], ids=lambda damage: damage.__name__)
def test_without_its_results_a_delivered_edit_is_not_paid_again(house: House, damage: Callable[[House], None]) -> None:
    house.run()
    damage(house)
    for _ in range(2):
        told = house.run(rightless=True)
        assert len(house.service.billed) == 1, told
        assert told.get("picture") in house.digests() or "always new" in told["text"]


def test_a_picture_that_cannot_be_kept_is_handed_over_and_not_paid_again(house: House) -> None:
    house.results.mkdir(parents=True)
    close_results(house)
    assert house.run(rightless=True).get("picture") in house.digests()
    for _ in range(2):
        told = house.run(rightless=True)
        assert len(house.service.billed) == 1, told
        assert told.get("picture") in house.digests() or "always new" in told["text"]
    assert house.run(rightless=True, anew=True).get("picture") in house.digests()
    assert len(house.service.billed) <= 2
