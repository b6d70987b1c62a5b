"""Whose turn it is: how much work is under way at once beside one event loop.

ComfyUI runs a node once for each element of a list, all at once. What has to wait for its turn waits here as a future
and nothing else: no thread, no connection, no file.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Hashable
from dataclasses import dataclass
from weakref import WeakKeyDictionary

# As many as the settings can allow to be under way at once; a node that keeps these busy gains nothing from more.
EACH = 8
# Several nodes side by side in one graph; beyond these they wait for each other.
TOGETHER = 32


@dataclass(frozen=True, eq=False)
class _Ticket:
    load: int
    called: asyncio.Future[None]


class Turns:
    """Turns beside one event loop: first come, first served, and nodes by rotation."""

    def __init__(self, each: int = EACH, together: int = TOGETHER) -> None:
        self._each = each
        self._together = together
        self._busy: Counter[Hashable] = Counter()
        self._waiting: OrderedDict[Hashable, deque[_Ticket]] = OrderedDict()

    @contextlib.asynccontextmanager
    async def turn(self, who: Hashable, load: int, given_up: asyncio.Future[None]) -> AsyncIterator[None]:
        """Have a turn for the length of a with block, which is entered without one as soon as `given_up` is done.

        who: the node. load: how many things the work does at once; a node with a place left gets in with all of it.
        """
        mine = _Ticket(load, asyncio.get_running_loop().create_future())
        self._waiting.setdefault(who, deque()).append(mine)
        self._call_up()
        try:
            if not mine.called.done():
                await asyncio.wait({mine.called, given_up}, return_when=asyncio.FIRST_COMPLETED)
            yield
        finally:
            if mine.called.done():
                self._busy[who] -= load
                if not self._busy[who]:
                    del self._busy[who]
                self._call_up()
            else:
                self._waiting[who].remove(mine)
                if not self._waiting[who]:
                    del self._waiting[who]

    def _call_up(self) -> None:
        """Call those whose turn it is, one of each node after the other."""
        called = True
        while called:
            called = False
            for who in list(self._waiting):
                if self._busy[who] >= self._each or self._busy.total() >= self._together:
                    continue
                ticket = self._waiting[who].popleft()
                if self._waiting[who]:
                    self._waiting.move_to_end(who)
                else:
                    del self._waiting[who]
                self._busy[who] += ticket.load
                ticket.called.set_result(None)
                called = True


_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, Turns] = WeakKeyDictionary()


def of_this_loop() -> Turns:
    """The turns beside the running event loop; each prompt of ComfyUI has a loop of its own."""
    loop = asyncio.get_running_loop()
    turns = _turns.get(loop)
    if turns is None:
        turns = _turns[loop] = Turns()
    return turns
