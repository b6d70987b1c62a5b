"""Files as drives give them: held by others, behind paths and shares that do not take all, and odd but whole."""

import errno
import json
import mmap
import struct
import sys
from types import SimpleNamespace

import pytest
import torch
from kontext_bridge.kontext.checkpoint import files
from kontext_bridge.kontext.checkpoint.files import open_tensors, too_long
from kontext_bridge.kontext.errors import CheckpointError, DamagedFile
from safetensors.torch import load_file


@pytest.mark.parametrize("length", [0x0280, 0x0480, 0x213C, 0x0A7B])
def test_a_header_whose_length_is_the_mark_of_another_kind_of_file_is_read(tmp_path, length):
    header = json.dumps({"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode().ljust(length)
    path = tmp_path / "kontext.safetensors"
    path.write_bytes(struct.pack("<Q", length) + header + b"\0" * 8)
    assert open_tensors(path)["x"].tolist() == [0, 0]


@pytest.mark.parametrize("method", ["is_file", "stat", "open"])
def test_a_file_that_another_program_holds_or_whose_share_is_gone_is_told_in_words(write, monkeypatch, method):
    path = write("legacy")

    def refuse(*_, **__):
        raise PermissionError(13, "The process cannot access the file", str(path))

    monkeypatch.setattr(type(path), method, refuse)
    with pytest.raises(CheckpointError, match=r"cannot be read: The process cannot access the file\. Another program"):
        open_tensors(path)


def test_a_path_that_is_too_long_for_windows_is_not_just_called_absent(tmp_path, monkeypatch):
    short, long = tmp_path / "kontext.safetensors", tmp_path / ("models" * 40) / "kontext.safetensors"
    assert too_long(short) == too_long(long) == ""
    monkeypatch.setattr(sys, "platform", "win32")
    assert too_long(short) == ""
    with pytest.raises(
        DamagedFile, match=rf"There is no file at .* {len(str(long))} characters, and Windows takes 259"
    ):
        open_tensors(long)


class Drive:
    """mmap of a file on a drive that offers some ways only."""

    def __init__(self, *offered, code=errno.ENODEV):
        self.offered, self.code = offered, code

    def __call__(self, descriptor, length, access):
        if access not in self.offered:
            raise OSError(self.code, "No such device")
        return mmap.mmap(descriptor, length, access=access)


def test_a_share_that_maps_no_file_for_all_readers_is_read_by_one_alone(write, monkeypatch, caplog):
    path = write("legacy")
    monkeypatch.setattr(files, "mmap", SimpleNamespace(**{**vars(mmap), "mmap": Drive(mmap.ACCESS_COPY)}))
    opened = open_tensors(path, read_only=True)
    assert torch.equal(opened["img_in.bias"], load_file(path)["img_in.bias"])
    assert not caplog.records


def test_a_drive_that_maps_no_file_at_all_is_not_taken_for_too_little_memory(write, monkeypatch):
    path = write("legacy")
    for code, words in (errno.ENODEV, "Copy it to a drive of this computer"), (errno.ENOMEM, "page file"):
        monkeypatch.setattr(files, "mmap", SimpleNamespace(**{**vars(mmap), "mmap": Drive(code=code)}))
        for read_only in False, True:
            with pytest.raises(CheckpointError, match=words):
                open_tensors(path, read_only=read_only)
