"""Keep as a node, as a command, and with a picture of 24 megapixels."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from alone import succeeds_alone
from drawn import pair, scene
from full_disk import full_disk
from kontext_bridge import host
from kontext_bridge.headless import ensure_comfy_api
from kontext_bridge.imaging.codec import decode, encode, to_tensors
from kontext_bridge.imaging.keep.engine import keep
from kontext_bridge.imaging.pixels import to_uint8
from kontext_bridge.keep import main
from PIL import Image

ensure_comfy_api()

from kontext_bridge.nodes.pictures.keep import KontextKeep  # noqa: E402


def save(picture: torch.Tensor, path: Path) -> Path:
    path.write_bytes(encode(to_uint8(picture)).data)
    return path


def load(path: Path) -> torch.Tensor:
    return to_tensors([decode(path.read_bytes())]).image[0]


def test_the_node_gives_picture_mask_and_info_and_says_what_it_found() -> None:
    given = pair(shift=(4.0, -3.0), zoom=1.02)
    image, mask, info = KontextKeep.execute(given.source[None], given.edited[None]).result
    assert torch.equal(image[0], keep(given.source, given.edited).picture) and mask.shape == (1, 288, 384)
    told = json.loads(info)["edits"][0]
    assert told["verdict"] == "local" and told["says"].startswith("shifted 5.0 px, 2.0% larger; tint corrected; ")
    assert set(told) >= {"shift", "scale", "turn", "bend", "drift", "changed", "covered", "before", "after", "why"}


def test_the_nodes_bar_counts_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[tuple[int, int]] = []

    class Bar:
        """ComfyUI's, as far as it is used."""

        def __init__(self, total: int) -> None:
            self.total = total

        def update_absolute(self, value: int) -> None:
            moved.append((value, self.total))

    monkeypatch.setitem(sys.modules, "comfy.utils", SimpleNamespace(ProgressBar=Bar))
    given = pair(96, 128)
    KontextKeep.execute(given.source[None], torch.stack([given.edited] * 3))
    assert moved == [(1, 3), (2, 3), (3, 3)]


def test_cancel_ends_the_node_within_a_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = iter([False, False, True])
    monkeypatch.setattr(host.comfyui, "interrupted", lambda: next(asked))
    given = pair(96, 128)
    with pytest.raises(host.LocalInterruption):
        KontextKeep.execute(given.source[None], given.edited[None])


def test_an_api_file_without_the_optional_inputs_runs() -> None:
    given = pair(96, 128)
    assert KontextKeep.execute(source=given.source[None], edited=given.edited[None]).result[0].shape == (1, 96, 128, 3)


def test_the_command_writes_picture_mask_and_info(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = pair(160, 200, shift=(2.0, 1.0))
    source, edited = save(given.source, tmp_path / "source.png"), save(given.edited, tmp_path / "edited.png")
    out, mask, info = tmp_path / "out.png", tmp_path / "mask.png", tmp_path / "info.json"
    assert main([str(source), str(edited), "-o", str(out), "--mask-out", str(mask), "--info", str(info)]) == 0
    said = capsys.readouterr().out.strip()
    assert "the rest is your own pixels" in said and json.loads(info.read_text())["says"] == said
    free = load(mask)[..., 0] == 0
    assert torch.equal(load(out)[free], given.source[free]) and not torch.equal(load(out), given.source)


def test_the_command_keeps_alpha_and_takes_a_mask(tmp_path: Path) -> None:
    given = pair(160, 200)
    alpha = (torch.linspace(0.2, 1, 200).expand(160, -1)[..., None] * 255).round() / 255
    source = save(torch.cat([given.source, alpha], -1), tmp_path / "source.png")
    edited = save(given.edited, tmp_path / "edited.png")
    bound = save(torch.zeros(160, 200, 3), tmp_path / "mask.png")
    out = tmp_path / "out.png"
    assert main([str(source), str(edited), "-o", str(out), "--mask", str(bound), "--change", "mask"]) == 1
    assert main([str(source), str(edited), "-o", str(out)]) == 0
    assert decode(out.read_bytes()).width == 200
    assert torch.allclose(to_tensors([decode(out.read_bytes())]).mask[0], 1 - alpha[..., 0], atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["missing.png", "missing.png", "-o", "x.png"], "missing.png"),
        (["missing.png", "missing.png", "-o", "x.bmp"], "must end in"),
        (["", "a.png", "-o", "x.png"], "SOURCE is empty"),
        (["a.png", "", "-o", "x.png"], "EDITED is empty"),
        (["a.png", "a.png", "-o", ""], "--out is empty"),
        (["a.png", "a.png", "-o", "x.png", "--mask", ""], "--mask is empty"),
        (["a.png", "a.png", "-o", "x.png", "--mask-out", ""], "--mask-out is empty"),
        (["a.png", "a.png", "-o", "x.png", "--info", ""], "--info is empty"),
        (["x" * 300 + ".png", "a.png", "-o", "x.png"], "too long"),
        (["a.png", "a.png", "-o", "x" * 300 + ".png"], "too long"),
        (["a.png", "a.png", "-o", "x.png", "--info", "x" * 300], "too long"),
        (["a.png", "a\0.png", "-o", "x.png"], "NUL"),
        (["a.png", "folder.png", "-o", "x.png"], "is a folder"),
        (["a.png", "a.png", "-o", "folder.png"], "is a folder"),
        (["a.png", "a.png", "-o", "x.png", "--info", "folder.png"], "is a folder"),
        (["a.png", "a.png", "-o", "x.png", "--mask", "folder.png"], "is a folder"),
        (["a.png", "a.png", "-o", "nowhere/x.png"], "no folder nowhere"),
        (["a.png", "a.png", "-o", "x.png", "--mask-out", "nowhere/x.png"], "no folder nowhere"),
        (["a.png", "a.png", "-o", "x.png", "--info", "nowhere/x.json"], "no folder nowhere"),
        (["a.png", "a.png", "-o", "x.png", "--mask-out", "./x.png"], "the same file"),
        (["huge.png", "a.png", "-o", "x.png"], "Scale it down first"),
    ],
)
def test_the_command_says_what_is_wrong(
    arguments: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    save(torch.zeros(16, 16, 3), tmp_path / "a.png")
    Path("folder.png").mkdir()
    if "huge.png" in arguments:
        Image.new("1", (9000, 9000)).save("huge.png")
    assert main(arguments) == 1
    said = capsys.readouterr().err
    assert words in said and "Errno" not in said and not Path("x.png").exists()


@pytest.mark.parametrize(
    ("options", "lost"),
    [
        (["-o", "a.png"], "a.png"),
        (["-o", "link.png"], "b.png"),
        (["-o", "x.png", "--info", "b.png"], "b.png"),
        (["-o", "x.png", "--mask", "m.png", "--mask-out", "m.png"], "m.png"),
    ],
    ids=str,
)
def test_the_command_writes_over_nothing_that_it_reads(
    options: list[str], lost: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = {name: save(scene(64, 64), tmp_path / name).read_bytes() for name in ("a.png", "b.png", "m.png")}
    Path("link.png").symlink_to("b.png")
    assert main(["a.png", "b.png", *options]) == 1
    assert "would be lost" in capsys.readouterr().err and Path(lost).read_bytes() == before[lost]


def test_a_disk_that_fills_up_leaves_the_older_picture_and_no_torn_one(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    source, edited = save(scene(64, 64), tmp_path / "a.png"), save(scene(64, 64, 3), tmp_path / "b.png")
    out = tmp_path / "out.png"
    out.write_bytes(older := b"an older picture " * 200)
    with full_disk():
        status = main([str(source), str(edited), "-o", str(out)])
    assert status == 1 and out.read_bytes() == older and str(out) in capsys.readouterr().err
    assert len(list(tmp_path.iterdir())) == 3


LARGE = """
import resource, torch
from kontext_bridge.imaging.keep.engine import keep
source = torch.nn.functional.interpolate(torch.load(FILE)["source"].permute(2, 0, 1)[None], (4000, 6000))[0]
source = source.permute(1, 2, 0).contiguous()
source += 0.02 * torch.rand(4000, 6000, 1)
edited = torch.load(FILE)["edited"]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
changed = torch.load(FILE)["changed"]
kept = keep(source, edited)
grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
free = kept.mask == 0
assert kept.report.verdict.value == "local", kept.report.line
assert all(torch.equal(kept.picture[row][free[row]], source[row][free[row]]) for row in range(4000))
rows, columns = (((torch.arange(n) + 0.5) * 12.5).long() for n in changed.shape)
small = kept.mask[rows][:, columns]
assert (small[changed] > 0.5).float().mean() > 0.96
assert small[torch.nn.functional.max_pool2d(changed[None].float(), 9, 1, 4)[0] == 0].max() == 0
assert grown < 50 * 24, f"{grown:.0f} MB"
"""


def test_24_megapixels_take_no_more_than_50_mb_each(tmp_path: Path) -> None:
    given = pair(320, 480, size=(832, 1248), shift=(5.0, 3.0))
    torch.save({"source": given.source, "edited": given.edited, "changed": given.changed}, tmp_path / "pair.pt")
    code = LARGE.replace("FILE", repr(str(tmp_path / "pair.pt")))
    succeeds_alone(code)


def test_declaring_the_node_does_not_load_the_engine() -> None:
    code = (
        "import sys; from kontext_bridge.headless import ensure_comfy_api; ensure_comfy_api();"
        "from kontext_bridge.nodes.pictures.keep import KontextKeep; KontextKeep.define_schema();"
        "sys.exit(any(name.endswith('keep.engine') for name in sys.modules))"
    )
    succeeds_alone(code)


def test_a_source_without_texture_is_not_called_another_picture() -> None:
    grey = torch.full((120, 160, 3), 0.5)
    kept = keep(grey, grey + 0.02)
    assert kept.report.verdict.value == "none" and torch.equal(kept.picture, grey)
    assert keep(scene(64, 64) * 0, scene(64, 64) * 0 + 0.001).report.verdict.value == "none"
