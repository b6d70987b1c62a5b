"""What is written from the nodes' own words: `make generated` does it, and a test says where it was forgotten.

The tables of nodes in README.md and docs/nodes.md, the English locale, and the snapshot that guards saved workflows.
The snapshot is written only where nothing that a saved workflow holds on to has changed; otherwise what would break is
printed, and it stays.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
for folder in (HERE / "examples", HERE / "nodes"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from kontext_bridge.oxen.api.models import OWN, bundled  # noqa: E402
from kontext_bridge.oxen.api.models.spec import Form, ModelSpec  # noqa: E402
from pack import DOCS, INFO, LOCALES, REPOSITORY, TABLE, inputs_of, outputs_of  # noqa: E402
from schema import broken, snapshot  # noqa: E402

README = REPOSITORY / "README.md"
PAGE = REPOSITORY / "docs" / "nodes.md"
ENGLISH = LOCALES / "en" / "nodeDefs.json"
SNAPSHOT = HERE / "nodes" / "schema.json"
TITLES = {
    "remote": "Remote, at Oxen.ai:",
    "local": "Local, on your own GPU:",
    "pictures": "For both, and for what any other editor gives:",
}
_BEGIN, _END = "<!-- nodes: written by `make generated` -->", "<!-- end of nodes -->"
HELP = DOCS / "OxenEdit.md"
_MODELS_BEGIN, _MODELS_END = "<!-- models: written by `make generated` -->", "<!-- end of models -->"


def locale() -> dict[str, Any]:
    """nodeDefs.json as the schemas say it, in the words of the nodes themselves."""
    return {id: _words(id) for id in INFO}


def _words(id: str) -> dict[str, Any]:
    inputs = inputs_of(id).items()
    return {
        "display_name": INFO[id]["display_name"],
        "description": INFO[id]["description"],
        "inputs": {name: {"name": name, "tooltip": options["tooltip"]} for name, options in inputs} | _labels(id),
        "outputs": {
            str(place): {"name": name, "tooltip": tooltip} for place, (name, tooltip) in enumerate(outputs_of(id))
        },
    }


def _labels(id: str) -> dict[str, Any]:
    """The labels of what stands below the choice of one's own model: Kontext's inputs and three more.

    The front end looks a nested label up with a line in place of the dot; a nested tooltip it takes from the node as it
    is, in English (1.49.6).
    """
    choices = inputs_of(id).get("model", {}).get("options", [])
    own = next((one["inputs"] for one in choices if isinstance(one, dict) and one["key"] == OWN), {})
    names = [name for kind in ("required", "optional") for name in own.get(kind, {})]
    return {f"model_{name}": {"name": name} for name in names}


def in_short(text: str) -> str:
    """What stands before the first colon, semicolon or full stop; the full stops of `Oxen.ai` and `FLUX.1` are none."""
    return re.split(r"[:;] |\.(?: |$)", text, maxsplit=1)[0]


def short_row(id: str) -> str:
    return f"| {INFO[id]['display_name']} | {in_short(INFO[id]['description'])} |"


def full_row(id: str) -> str:
    return f"| [{INFO[id]['display_name']}](../web/docs/{id}.md) | {INFO[id]['description']} |"


def tables(row: Callable[[str], str]) -> str:
    """A table for each wing of nodes/, with the nodes in the order in which the pack lists them."""
    rows: dict[str, list[str]] = {wing: [] for wing in TITLES}
    for id in INFO:
        rows[TABLE[id].__module__.split(".")[-2]].append(row(id))
    return "\n\n".join(
        "\n".join([TITLES[wing], "", "| node | what it does |", "|---|---|", *rows[wing]]) for wing in rows
    )


def page(path: Path, row: Callable[[str], str]) -> str:
    """A page with its tables as the nodes are now."""
    text = path.read_text(encoding="utf-8")
    found = re.sub(f"{_BEGIN}.*{_END}", lambda _: f"{_BEGIN}\n{tables(row)}\n{_END}", text, flags=re.DOTALL)
    assert _BEGIN in found and _END in found, f"{path.name} has lost the marks between which its tables are written"
    return found


def model_row(spec: ModelSpec) -> str:
    """A model in the table of Edit Picture's help page."""
    from kontext_bridge.nodes.remote.own_inputs import own_fields  # with the comfy_api that pack has found

    most = spec.pictures.most
    told = "" if spec.pictures.told_most else ", as far as is known"
    pictures = "1" if most == 1 else str(most) if spec.pictures.form is Form.FIELDS else f"1 to {most}{told}"
    mask = "" if spec.mask is None else "needed" if spec.mask.required else "yes"
    shape = "its own"
    if spec.shape is not None:
        kept = spec.shape.switch or spec.shape.keeps
        shape = "nearest" if kept is None else "kept"
    own = ", ".join(f"`{one.name}`" for one in own_fields(spec)) or "none"
    prompt = "" if "prompt" in spec.named else " Takes no prompt."
    return f"| `{spec.id}` | {spec.about}{prompt} | {pictures} | {mask} | {shape} | {own} | {spec.price.told()} |"


def help_page() -> str:
    """Edit Picture's help page with its table as the models are now."""
    head = "| model | what it does | pictures for one edit | mask | as my picture | its own inputs | price |"
    table = "\n".join([head, "|---|---|---|---|---|---|---|", *map(model_row, bundled().values())])
    text = HELP.read_text(encoding="utf-8")
    found = re.sub(
        f"{_MODELS_BEGIN}.*{_MODELS_END}",
        lambda _: f"{_MODELS_BEGIN}\n{table}\n{_MODELS_END}",
        text,
        flags=re.DOTALL,
    )
    assert _MODELS_BEGIN in found and _MODELS_END in found, "the marks are lost between which the models are written"
    return found


def files() -> dict[Path, str]:
    """What each written file has to hold."""
    return {
        README: page(README, short_row),
        PAGE: page(PAGE, full_row),
        HELP: help_page(),
        ENGLISH: in_few_lines(locale()) + "\n",
        SNAPSHOT: json.dumps(snapshot(), indent=1) + "\n",
    }


def in_few_lines(value: Any, depth: int = 0) -> str:
    """JSON to be read and compared, in which what holds no further objects or lists takes one line, and little room."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    if not any(isinstance(part, dict | list) and part for part in parts):
        return json.dumps(value, ensure_ascii=False)
    pad = " " * (depth + 1)
    if isinstance(value, dict):
        lines = [f"{pad}{json.dumps(key)}: {in_few_lines(part, depth + 1)}" for key, part in value.items()]
    else:
        lines = [pad + in_few_lines(part, depth + 1) for part in value]
    first, last = "{}" if isinstance(value, dict) else "[]"
    return f"{first}\n" + ",\n".join(lines) + f"\n{pad[1:]}{last}"


def main() -> int:
    wrong = broken(json.loads(SNAPSHOT.read_text(encoding="utf-8")), snapshot())
    for path, text in files().items():
        if (path != SNAPSHOT or not wrong) and path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8", newline="\n")
            sys.stdout.write(f"written: {path.relative_to(REPOSITORY)}\n")
    for sentence in wrong:
        sys.stderr.write(f"{sentence}\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
