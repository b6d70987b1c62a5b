"""The stand-in's edit as the demo model makes it: at the picture's size, framed and labelled, or honestly tinted."""

from __future__ import annotations

import io
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from kontext_bridge.kontext.demo import shipped
from kontext_bridge.standin.painter import NoPainter, Painter
from kontext_bridge.standin.parameters import AskedEdit
from kontext_bridge.standin.picture import BadPicture, make_edit
from PIL import Image
from tiny_demo import write_demo


@pytest.fixture(scope="module")
def painter(tmp_path_factory: pytest.TempPathFactory) -> Painter:
    folder = tmp_path_factory.mktemp("model")
    write_demo(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shipped, "FOLDER", folder)
        return Painter()


def asked(**changes: object) -> AskedEdit:
    plain = {
        "prompt": "paint the boat red",
        "aspect_ratio": "match_input_image",
        "steps": 2,
        "guidance": 2.5,
        "seed": 1,
        "output_format": "png",
        "output_quality": 80,
    }
    return AskedEdit(**(plain | changes))


def source(width: int = 300, height: int = 200) -> bytes:
    out = io.BytesIO()
    Image.radial_gradient("L").resize((width, height)).convert("RGB").save(out, "PNG")
    return out.getvalue()


def made(painter: Painter | None, **changes: object) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(make_edit(source(), asked(**changes), paint=painter))))


def test_a_painted_edit_without_the_frame_and_the_label_is_noticed(painter: Painter) -> None:
    painted, tinted = made(painter), made(None)
    assert painted.shape == tinted.shape == (832, 1248, 3)
    frame = np.ones(painted.shape[:2], bool)
    frame[22:-22, 22:-22] = False
    assert np.array_equal(painted[frame], tinted[frame])
    assert not np.array_equal(painted[40:400], tinted[40:400]), "the model painted it"
    band = painted[-140:-22, 22:-22].astype(int)
    assert (band.min(-1) > 220).sum() > 500, "white letters"


@pytest.mark.parametrize("change", [{"prompt": "remove the birds"}, {"seed": 2**70 + 3}, {"seed": -4}, {"guidance": 0}])
def test_an_edit_that_is_not_the_one_asked_for_is_noticed(change: dict[str, object], painter: Painter) -> None:
    plain, other = made(painter)[40:400], made(painter, **change)[40:400]
    assert not np.array_equal(plain, other)
    assert np.array_equal(other, made(painter, **change)[40:400]), "the same request gives the same picture"


def test_edits_side_by_side_that_mix_are_noticed(painter: Painter) -> None:
    alone = [made(painter, seed=seed) for seed in range(3)]
    with ThreadPoolExecutor(3) as threads:
        together = list(threads.map(lambda seed: made(painter, seed=seed), range(3)))
    assert all(np.array_equal(one, other) for one, other in zip(alone, together, strict=True))


@pytest.mark.parametrize("size", [(4000, 50), (16, 16), (50, 4000)])
def test_a_shape_that_the_model_cannot_sample_is_noticed(size: tuple[int, int], painter: Painter) -> None:
    picture = Image.new("RGB", size, "green")
    assert painter(picture, asked(steps=1)).size == size


def test_an_edit_that_cannot_be_made_and_stops_the_service_is_noticed(painter: Painter) -> None:
    with pytest.raises(BadPicture, match="guidance"):
        make_edit(source(), asked(guidance=float("nan")), paint=painter)


def test_a_model_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    with pytest.raises(NoPainter, match=shipped.TRANSFORMER):
        Painter()


@pytest.mark.parametrize("name", [shipped.TRANSFORMER, shipped.VAE, shipped.TEXT])
def test_a_damaged_model_that_is_found_out_only_by_the_first_edit_is_noticed(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_demo(tmp_path)
    (tmp_path / name).write_bytes(b"half a file")
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    with pytest.raises(NoPainter, match=name):
        Painter()


def test_a_missing_torch_is_said_and_the_stand_in_itself_needs_none() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from kontext_bridge.standin.painter import NoPainter, Painter\n"
        "from kontext_bridge.standin import StandIn\n"
        "try:\n    Painter()\nexcept NoPainter as error:\n    sys.exit(str(error))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.strip() == "torch is not installed."
