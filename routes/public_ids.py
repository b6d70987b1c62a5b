"""What an edit is called between the page and the server: r12-0f3a9c of the ledger, l3-77b0e1 made on this machine.

The last part comes from the edit itself, so that a ledger that was replaced does not show another edit's picture from a
cache, and no id of a page leads to a file by its own letters.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

TAG_LENGTH = 6
# SQLite's numbers end at 19 digits.
_ID = re.compile(r"([rl])([1-9][0-9]{0,14})-([0-9a-f]{6})")


@dataclass(frozen=True)
class EditId:
    """remote: of the ledger, where `tag` begins the request key; otherwise of the album, where it is the edit's own."""

    remote: bool
    number: int
    tag: str

    def __str__(self) -> str:
        return f"{'r' if self.remote else 'l'}{self.number}-{self.tag}"

    @staticmethod
    def read(text: str) -> EditId | None:
        """The id in a text; None where there is none."""
        found = _ID.fullmatch(text)
        return EditId(found[1] == "r", int(found[2]), found[3]) if found else None

    @staticmethod
    def of_ledger(number: int, key: str) -> EditId:
        return EditId(True, number, key[:TAG_LENGTH])

    @staticmethod
    def of_album(number: int, tag: str) -> EditId:
        return EditId(False, number, tag)
