"""Who is next: work beside an event loop, some of it waiting as a future and nothing else."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from kontext_bridge import host
from kontext_bridge.host.turns import EACH, Turns
from kontext_bridge.oxen.control import Control


class Work:
    """Counts what is under way at once, by node."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.busy: dict[str, int] = {}
        self.most: dict[str, int] = {}
        self.order: list[str] = []

    async def do(self, who: str, load: int = 1, seconds: float = 0.005) -> None:
        never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        async with self.turns.turn(who, load, never):
            self.order.append(who)
            for name in (who, "all"):
                self.busy[name] = self.busy.get(name, 0) + load
                self.most[name] = max(self.most.get(name, 0), self.busy[name])
            await asyncio.sleep(seconds)
            for name in (who, "all"):
                self.busy[name] -= load


def test_no_node_has_more_under_way_than_its_share_nor_all_together_than_theirs() -> None:
    async def run() -> Work:
        work = Work(Turns(each=3, together=7))
        await asyncio.gather(*(work.do(f"node {n % 4}") for n in range(80)))
        return work

    work = asyncio.run(run())
    assert work.most.pop("all") == 7 and set(work.most.values()) <= {1, 2, 3}
    assert len(work.order) == 80 and work.turns._busy == {} and work.turns._waiting == {}


def test_a_short_node_does_not_wait_for_the_end_of_a_long_list() -> None:
    async def run() -> Work:
        work = Work(Turns(each=8, together=8))
        await asyncio.gather(*(work.do("list") for _ in range(100)), *(work.do("alone") for _ in range(2)))
        return work

    order = asyncio.run(run()).order
    assert max(place for place, who in enumerate(order) if who == "alone") < 20


def test_work_that_does_many_things_at_once_counts_as_many() -> None:
    async def run() -> Work:
        work = Work(Turns(each=8, together=32))
        await asyncio.gather(*(work.do("list", load=8) for _ in range(5)))
        await asyncio.gather(*(work.do("odd", load=5) for _ in range(5)))
        return work

    most = asyncio.run(run()).most
    assert most["list"] == 8 and most["odd"] == 10


def test_who_is_cancelled_while_waiting_or_at_work_takes_nobodys_place() -> None:
    async def run() -> Turns:
        work = Work(Turns(each=2, together=2))
        tasks = [asyncio.create_task(work.do("node", seconds=30)) for _ in range(6)]
        await asyncio.sleep(0.01)
        for task in (tasks[0], tasks[3], tasks[5]):
            task.cancel()
        await asyncio.sleep(0.01)
        assert work.order == ["node"] * 3, "one place was free for the next"
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return work.turns

    turns = asyncio.run(run())
    assert turns._busy == {} and turns._waiting == {}


def test_what_waits_for_its_turn_has_no_thread() -> None:
    release = threading.Event()

    async def run() -> list[Any]:
        calls = [asyncio.create_task(host.run_off_loop(lambda: release.wait(10), Control())) for _ in range(100)]
        await asyncio.sleep(0.2)
        threads = [one for one in threading.enumerate() if one.name == "kontext-bridge run"]
        release.set()
        return [len(threads), *await asyncio.gather(*calls)]

    threads, *results = asyncio.run(run())
    assert threads == EACH and results == [True] * 100


def test_where_the_system_gives_no_thread_it_is_said_and_nothing_is_left_behind(monkeypatch: Any) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def run() -> None:
        with pytest.raises(host.NoThread, match=r"no further thread.*nothing was sent.*run again"):
            await host.run_off_loop(lambda: None, Control())

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        asyncio.run(run())
    assert host.aside._watched == set()
    assert asyncio.run(host.run_off_loop(lambda: 5, Control())) == 5
