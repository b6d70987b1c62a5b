"""Which files the widgets of the local nodes list, and where those are: ComfyUI's, and the LoRA of the demo model."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from kontext_bridge.headless import ensure_comfy_api
from kontext_bridge.kontext.demo import shipped
from kontext_bridge.kontext.errors import BadRequest

ensure_comfy_api()
from kontext_bridge.nodes.local import model_files as files  # noqa: E402

(OWN,) = shipped.LORAS


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """ComfyUI's models/loras, with one file in it; the pack has a LoRA of its own."""
    folder, ours = tmp_path / "loras", tmp_path / "ours"
    for one in (folder, ours):
        one.mkdir()
    (folder / "a.safetensors").write_bytes(b"a")
    (ours / OWN).write_bytes(b"own")

    def found(kind: str, name: str) -> str | None:
        return str(tmp_path / kind / name) if (tmp_path / kind / name).is_file() else None

    def listed(kind: str) -> list[str]:
        return sorted(path.name for path in (tmp_path / kind).glob("*"))

    def folders(kind: str) -> list[str]:
        return [str(tmp_path / kind)]

    host = SimpleNamespace(get_full_path=found, get_filename_list=listed, get_folder_paths=folders)
    monkeypatch.setitem(sys.modules, "folder_paths", host)  # type: ignore[arg-type]
    monkeypatch.setattr(shipped, "FOLDER", ours)
    return folder


def test_the_packs_own_lora_is_listed_after_the_artists_and_found(models: Path) -> None:
    assert files.names("loras") == ["a.safetensors", OWN]
    assert files.path("loras", OWN).read_bytes() == b"own"
    assert files.state("loras", OWN) is not None


def test_a_file_of_the_artists_of_the_same_name_comes_first_and_once(models: Path) -> None:
    (models / OWN).write_bytes(b"the artist's")
    assert files.names("loras") == ["a.safetensors", OWN]
    assert files.path("loras", OWN).read_bytes() == b"the artist's"


def test_a_lora_that_is_not_installed_or_of_another_kind_is_not_listed(models: Path) -> None:
    (models.parent / "vae").mkdir()
    assert files.names("vae") == []
    (shipped.FOLDER / OWN).unlink()
    assert files.names("loras") == ["a.safetensors"]
    assert files.state("loras", OWN) is None
    with pytest.raises(BadRequest, match=OWN):
        files.path("loras", OWN)


def test_a_listed_file_whose_path_is_too_long_for_windows_is_not_called_gone_alone(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    for name, told in (("gone", False), ("long" * 60, True)):
        with pytest.raises(BadRequest, match="Put it back") as raised:
            files.path("loras", f"{name}.safetensors")
        assert ("and Windows takes 259" in str(raised.value)) == told
