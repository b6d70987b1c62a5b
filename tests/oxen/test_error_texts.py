"""Every error that an artist can read says what to do and whether anything was paid, and names its generation last.

The texts are read out of the source, so that a new one is held to the same.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from kontext_bridge.oxen import errors
from kontext_bridge.oxen.errors import GenerationFailed, about

ROOT = Path(__file__).resolve().parents[2]
KINDS = {name for name, one in vars(errors).items() if isinstance(one, type) and issubclass(one, errors.OxenError)}

# What somebody else completes before it is shown, or nobody is shown.
PIECES = {
    "… Nothing was sent.": "editing/ says what is wrong with a value, and what it takes",
    "The edit is finished and paid for, but its picture …: …": "unread.py adds where it is kept, and the way on",
    "… The other … … kept: …, or set if_some_fail to go on with what succeeded.": "each item's own error says it",
    "keep is auto, and that needs the pictures as they were before the edit, which the records of edits do not hold. "
    "Connect them to source, or set keep to off.": "Kontext Collect and Kontext History say what was fetched",
    "keep is auto, and source has … pictures for …. Connect one for all of them, one for each, or those that were "
    "submitted, where each has as many variations.": "Kontext Collect and Kontext History say what was fetched",
    "The run was stopped.": "stands for Cancel, which shows no error",
    "The run was stopped after the request was sent and before its answer came.": "doubt.py adds what became of it",
    "The connection to … broke after the request was sent: ….": "doubt.py adds what became of it",
    "The answer to a paid request could not be read: …": "doubt.py adds what became of it",
    "All … edits failed. ……": "each edit's own error says it",
    "… …": "two that say it",
}
# Replies that are none: doubt.py or given_up.py says what became of the request, and the way on.
REPLIES = {"UnexpectedReply", "UnknownStatus", "Upstream"}
# Downloads: results.py says what was paid, and the way on; the node that reads URIs pays nothing.
DOWNLOADS = {"oxen/http/fetch.py", "oxen/http/address.py"}
TO_DO = re.compile(
    r"\b([Rr]un|[Cc]heck|[Gg]ive|[Cc]onnect|[Ss]et|Add|Change|Wait|Get|Remove|Split|Scale|Save|Put|End|Choose|Raise|"
    r"[Cc]opy|takes|Known settings|must be|[Ww]rite|use|Make|Mend|Close|Restart|is the default|Please report|"
    r"Running|Collecting)\b|_MEND|advice|_RETRY|ONCE_MORE|of_the_ledger|\{why\}"
)
COST = re.compile(
    r"[Nn]othing (was|is) (sent|paid|charged|fetched|changed|asked)|not sent|neither sent|not paid|without paying|paid|"
    r"No edit was sent|free|billed|costs nothing|_MEND|NOT_TOLD|advice|_REMEMBERED|of_the_ledger|_NEVER_KEPT|"
    r"[Nn]othing was"
)


@dataclass(frozen=True)
class Text:
    place: str
    kind: str
    text: str


def _text(node: ast.expr) -> str | None:
    """A text with its names as they are, and all else that it is given as dots."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(str(one.value) if isinstance(one, ast.Constant) else _given(one) for one in node.values)
    if isinstance(node, ast.BinOp):
        return (_text(node.left) or "…") + (_text(node.right) or "…")
    return None


def _given(node: ast.expr) -> str:
    name = ast.unparse(node.value) if isinstance(node, ast.FormattedValue) else ""
    return f"{{{name}}}"


def texts() -> Iterator[Text]:
    for room in ("oxen", "nodes/remote", "host"):
        for path in sorted((ROOT / room).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if not isinstance(node, ast.Call) or not node.args:
                    continue
                kind = getattr(node.func, "id", getattr(node.func, "attr", ""))
                text = _text(node.args[0])
                if (kind in KINDS or kind == "reworded") and text is not None:
                    yield Text(f"{path.relative_to(ROOT).as_posix()}:{node.lineno}", kind, text)


TEXTS = list(texts())


def plain(text: str) -> str:
    return re.sub(r"\{[^{}]*\}", "…", text)


def shown(one: Text) -> bool:
    """Whether a text is shown as it is: none that others complete, or that only adds to another's."""
    completed = one.kind == "reworded" or one.kind in REPLIES or one.place.split(":")[0] in DOWNLOADS
    return not completed and plain(one.text) not in PIECES


def test_there_are_texts_to_look_at() -> None:
    assert len(TEXTS) > 80 and len({one.kind for one in TEXTS}) > 15


def test_no_text_begins_with_a_generation() -> None:
    ids = re.compile(r"\{(self\._id|generation_id|row\.generation_id|record\.generation_id|error\.generation_id)\}.*\w")
    early = [one for one in TEXTS if ids.search(one.text) and one.kind not in REPLIES]
    assert early == [], "the error's generation_id stands last by itself"


@pytest.mark.parametrize("one", [one for one in TEXTS if shown(one)], ids=lambda one: one.place)
def test_a_text_says_what_to_do_and_what_it_cost(one: Text) -> None:
    assert TO_DO.search(one.text), f"nothing to do: {one}"
    assert COST.search(one.text), f"nothing of the cost: {one}"


def test_the_generation_stands_last_however_an_error_is_reworded() -> None:
    error = GenerationFailed("The edit failed.", generation_id="0123-4567")
    assert str(error) == "The edit failed. Generation 0123-4567."
    assert str(error.reworded("The edit failed. Run again.")) == "The edit failed. Run again. Generation 0123-4567."
    assert str(error.reworded("All failed. Generations 0123-4567, 89.")).endswith("Generations 0123-4567, 89.")
    at = "http://127.0.0.1/0123-4567.png is gone."
    assert str(error.reworded(at)) == f"{at} Generation 0123-4567.", "an address is no name"


def test_of_many_generations_some_are_named() -> None:
    assert about("All failed.", []) == "All failed."
    assert about("All failed.", ["a", "b"]) == "All failed. Generations a, b."
    assert about("All failed.", [str(one) for one in range(10)]).endswith("6, 7 and 2 more.")
