"""report.html: before and after, what failed on top. One file that opens from the disk and asks for nothing else."""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..oxen.private_files import put_in_place
from .made import DONE
from .thumbnails import thumbnail_below

# A picture is some five kilobytes: a page of all of 100,000 rows would open in no browser.
MOST_SHOWN = 400
_SIDE = 224
_KINDS = {"failed": "Failed", "flagged": "Marked", "done": "Done"}
_STYLE = """
:root { color-scheme: light dark; font: 15px/1.45 system-ui, sans-serif; }
body { margin: 0 auto; max-width: 1500px; padding: 24px; }
h1 { font-size: 22px; margin: 0 0 4px; }
h2 { font-size: 17px; margin: 32px 0 10px; }
p.sum { margin: 0; opacity: .75; }
.rows { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(420px, 100%), 1fr)); gap: 14px; }
.row { border: 1px solid color-mix(in srgb, currentColor 18%, transparent); border-radius: 8px; padding: 10px; }
.row.failed { border-color: #c33; }
.row.flagged { border-color: #c80; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 8px; }
.pair div { min-height: 90px; background: color-mix(in srgb, currentColor 7%, transparent); border-radius: 5px;
  display: grid; place-items: center; overflow: hidden; font-size: 13px; opacity: .95; }
.pair img { display: block; max-width: 100%; max-height: 224px; }
.name { font-weight: 600; margin: 8px 0 0; overflow-wrap: anywhere; }
.facts { margin: 0; font-size: 13px; opacity: .75; overflow-wrap: anywhere; }
.error { margin: 4px 0 0; color: #c33; overflow-wrap: anywhere; }
.flags { margin: 4px 0 0; color: #b60; }
a { color: inherit; }
"""


def write_page(
    path: Path,
    entries: Callable[[], Iterator[Mapping[str, Any]]],
    *,
    results: Path,
    images: Path,
    summary: str,
) -> None:
    """Write the page. entries: gives the last entry of every row, and may be asked several times. summary: a line.

    Pictures are read one at a time; the page replaces the one before when it is whole. Raises OSError.
    """
    draft = path.with_name(f".{path.name}.part")
    with draft.open("w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(
            '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Report</title>'
            '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
            'style-src \'unsafe-inline\'"><meta name="viewport" content="width=device-width">'
            f"<style>{_STYLE}</style></head><body><h1>{html.escape(results.name)}</h1>"
            f'<p class="sum">{html.escape(summary)}</p>'
        )
        for kind, title in _KINDS.items():
            count = sum(1 for one in entries() if _kind(one) == kind)
            if not count:
                continue
            step = -(-count // MOST_SHOWN)
            part = "" if step == 1 else f", of which one in {step} is shown"
            file.write(f'<h2>{title}: {count:,}{part}</h2><div class="rows">')
            for place, one in enumerate(one for one in entries() if _kind(one) == kind):
                if place % step == 0:
                    file.write(_row(kind, one, results, images))
            file.write("</div>")
        file.write("</body></html>\n")
    put_in_place(draft, path)


def _kind(entry: Mapping[str, Any]) -> str:
    return "failed" if entry["state"] != DONE else "flagged" if entry.get("flags") else "done"


def _row(kind: str, entry: Mapping[str, Any], results: Path, images: Path) -> str:
    before = _picture(images, entry.get("image"), "before")
    after = _picture(results, entry["output"], "after") if entry["state"] == DONE else "no result"
    name = html.escape(str(entry["output"]))
    if entry["state"] == DONE:
        name = f'<a href="{html.escape(quote(os.fspath(entry["output"])))}">{name}</a>'
    error, flags = entry.get("error"), entry.get("flags")
    return (
        f'<div class="row {kind}"><div class="pair"><div>{before}</div><div>{after}</div></div>'
        f'<p class="name">{name}</p>'
        + (f'<p class="error">{html.escape(str(error))}</p>' if error else "")
        + (
            f'<p class="flags">{html.escape(", ".join(map(str, flags)))}</p>'
            if isinstance(flags, list) and flags
            else ""
        )
        + f'<p class="facts">{html.escape(_facts(entry))}</p></div>'
    )


def _facts(entry: Mapping[str, Any]) -> str:
    cost = entry.get("cost_usd")
    parts = [
        str(entry.get("where", "")),
        f"seed {entry['seed']}" if "seed" in entry else "",
        f"other seed no. {entry['other']}, before it {entry.get('aside')}" if entry.get("other") else "",
        f"{entry['size_before']} to {entry['size']}" if "size" in entry and "size_before" in entry else "",
        f"{entry.get('seconds')} s",
        f"{'perhaps ' if entry.get('over') else ''}${cost}" if cost is not None else "",
        str(entry.get("keep", "")),
        str(entry.get("generation_id", "")),
    ]
    return " · ".join(part for part in parts if part)


def _picture(folder: Path, name: object, alt: str) -> str:
    small = thumbnail_below(folder, name, _SIDE)
    if small is None:
        return f"{alt}: not readable"
    out = io.BytesIO()
    small.save(out, "WEBP", quality=72, method=2)
    return f'<img alt="{alt}" src="data:image/webp;base64,{base64.b64encode(out.getvalue()).decode()}">'
