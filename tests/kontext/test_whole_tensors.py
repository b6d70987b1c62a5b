"""Which tensors are a file's own, byte for byte: another program may read just these from the file instead."""

import json
import mmap
import os

import pytest
import torch
from kontext_bridge.kontext.checkpoint import files
from kontext_bridge.kontext.checkpoint.bfl import bfl_layers, bfl_norms
from kontext_bridge.kontext.checkpoint.files import open_tensors
from kontext_bridge.kontext.checkpoint.reading import read_checkpoint
from safetensors.torch import save_file

E4M3 = torch.float8_e4m3fn
SQUARE = torch.arange(64, dtype=torch.float32).view(8, 8)
TENSORS = {
    "square": SQUARE.to(E4M3),
    "wide": SQUARE.to(torch.bfloat16),
    "vector": SQUARE[0].clone(),
    "number": torch.tensor(0.5),
    "empty": torch.zeros(0, dtype=E4M3),
    "large": torch.zeros(1024, 1024, dtype=E4M3),
}


@pytest.fixture
def file(tmp_path):
    save_file(TENSORS, tmp_path / "some.safetensors")
    return open_tensors(tmp_path / "some.safetensors")


def test_tensors_as_they_are_in_the_file_are_named(file):
    names = {f"our {name}": name for name in TENSORS if name != "empty"}
    assert file.whole({ours: file[name] for ours, name in names.items()}) == names
    assert file.whole({"all rows": file["square"][:], "parameter": torch.nn.Parameter(file["wide"], False)}) == {
        "all rows": "square",
        "parameter": "wide",
    }


@pytest.mark.parametrize(
    "changed",
    [
        lambda file: file["square"][:4],
        lambda file: file["square"][4:],
        lambda file: file["square"][::2],
        lambda file: file["square"].t(),
        lambda file: file["square"].view(4, 16),
        lambda file: file["square"].view(torch.uint8),
        lambda file: file["square"].view(torch.float8_e5m2),
        lambda file: file["square"].clone(),
        lambda file: torch.cat([file["square"][4:].view(torch.uint8), file["square"][:4].view(torch.uint8)]).view(E4M3),
        lambda file: file["wide"].to(torch.float32),
        lambda file: file["number"].to(torch.float32, copy=True),
        lambda file: file["number"].expand(8),
        lambda file: file["empty"],
        lambda file: file["square"].to("meta"),
        lambda file: open_tensors(file.path)["square"],
    ],
)
def test_what_is_not_the_whole_tensor_of_this_file_is_not_taken_for_it(file, changed):
    assert file.whole({"square": changed(file)}) == {}


def test_tensors_that_had_to_be_copied_out_of_the_file_are_not_taken_for_it(tmp_path, monkeypatch):
    def read_only(descriptor, length, access):
        if access == mmap.ACCESS_COPY:
            raise OSError("no room")
        return real(descriptor, length, access=access)

    real = mmap.mmap
    save_file(TENSORS, tmp_path / "some.safetensors")
    monkeypatch.setattr(files.mmap, "mmap", read_only)
    file = open_tensors(tmp_path / "some.safetensors")
    assert file.whole(dict(file)) == {"large": "large"}
    in_place = open_tensors(tmp_path / "some.safetensors", read_only=True)
    assert set(in_place.whole(dict(in_place))) == set(TENSORS) - {"empty"}


def test_tensors_at_odd_addresses_are_not_taken_for_the_files(tmp_path):
    header = {
        "odd": {"dtype": "BF16", "shape": [3], "data_offsets": [1, 7]},
        "first": {"dtype": "F8_E4M3", "shape": [1], "data_offsets": [0, 1]},
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path = tmp_path / "odd.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(7))
    file = open_tensors(path)
    assert file.whole(dict(file)) == {"first": "first"}


def test_a_file_that_was_replaced_or_written_to_is_not_the_one_that_was_opened(file):
    assert file.is_unchanged()
    os.utime(file.path, ns=(1, 1))
    assert not file.is_unchanged()
    again = open_tensors(file.path)
    other = file.path.with_name("other")
    other.write_bytes(file.path.read_bytes())
    os.utime(other, ns=(1, 1))
    other.replace(file.path)
    assert not again.is_unchanged()
    file.path.unlink()
    assert not again.is_unchanged()


@pytest.mark.parametrize("first", ["stamped", "replaced"])
def test_a_file_that_is_replaced_while_it_is_opened_is_not_taken_for_unchanged(file, monkeypatch, first):
    other, real = file.path.with_name("other"), files._stamp
    save_file({name: torch.zeros_like(tensor) for name, tensor in TENSORS.items()}, other)

    def stamped(path):
        before = real(path)
        if other.exists():
            other.replace(path)
        return before if first == "stamped" else real(path)

    monkeypatch.setattr(files, "_stamp", stamped)
    opened = open_tensors(file.path)
    is_new = not opened["vector"].any()
    assert is_new or not opened.is_unchanged(), "the path has another file than the one that was read"


def test_layers_of_a_checkpoint_are_the_files_unless_they_are_joined_or_turned(write, layout):
    checkpoint = read_checkpoint(write(layout))
    tensors = {name: weights.weight for name, weights in bfl_layers(checkpoint)}
    tensors |= {f"{name}.norm": norm for name, norm in bfl_norms(checkpoint)}
    found = {}
    for file in checkpoint.files:
        for name, inside in file.whole(tensors).items():
            assert torch.equal(file[inside].view(torch.uint8), tensors[name].view(torch.uint8))
            found[name] = inside
    joined = ("qkv", "linear1", "adaLN_modulation.1") if "diffusers" in layout else ()
    assert set(found) == {name for name in tensors if not name.endswith(joined or "nothing")}
