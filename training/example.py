"""The picture that the templates edit: `python -m kontext_bridge.training.example OUT.png`.

Drawn as the scenes are on which the demo model was taught, so that it edits this one, too.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

from .asked_for import carried_out
from .drawing import drawn
from .scenes import example

SIZE = (1024, 768)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m kontext_bridge.training.example", description=__doc__)
    parser.add_argument("picture", type=Path, help="where to write it: a .png")
    given = parser.parse_args(arguments)
    Image.fromarray(drawn(example(SIZE))).save(given.picture, "PNG", optimize=True)


if __name__ == "__main__":
    carried_out(main)
