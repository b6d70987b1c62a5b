"""The templates' picture: drawn by the training's own program, and edited by the demo model as it is told."""

from pathlib import Path

import numpy as np
import pytest
from kontext_bridge.training.example import SIZE, main
from PIL import Image

SHIPPED = Path(__file__).parents[2] / "example_workflows" / "kontext_example.png"


def pixels(path):
    with Image.open(path) as picture:
        assert (picture.size, picture.mode, picture.info) == (SIZE, "RGB", {})
        return np.asarray(picture).astype(int)


def test_a_shipped_picture_that_the_program_does_not_draw_is_noticed(tmp_path):
    main([str(tmp_path / "drawn.png")])
    off = np.abs(pixels(tmp_path / "drawn.png") - pixels(SHIPPED)).max(-1)
    # Another Pillow may round an edge the other way.
    assert (off > 8).mean() < 0.002


def test_a_program_without_a_place_to_write_to_says_so(capsys):
    with pytest.raises(SystemExit):
        main([])
    assert "picture" in capsys.readouterr().err
