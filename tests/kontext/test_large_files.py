"""A file larger than memory is read in place. The limit is set on a process; the files are sparse and take no room."""

import json
import subprocess
import sys

import pytest

pytest.importorskip("resource")

LARGE = 64 * 2**30
CODE = """
import resource, sys, warnings
from pathlib import Path
import torch
from kontext_bridge.kontext.checkpoint import files
from kontext_bridge.kontext.errors import CheckpointError
which, path, *read_only = sys.argv[1], Path(sys.argv[2]), *sys.argv[3:]
# The system counts private pages that may be written to against the first, all pages against the second.
limit = getattr(resource, which)
resource.setrlimit(limit, (16 * 2**30, 16 * 2**30))
try:
    opened = files.open_tensors(path, read_only=bool(read_only))
except CheckpointError as error:
    sys.exit(str(error))
with warnings.catch_warnings():
    warnings.simplefilter("error")
    large, small, odd = opened["large"], opened["small"], opened["odd"]
assert int(large.view(torch.uint8)[-1, -1]) == 0x38 and float(large[-1, -1]) == 1
if not read_only:
    small += 1
    odd += 1
    assert small.tolist() == [1, 1] and odd.tolist() == [1, 1, 1]
assert opened["small"].tolist() == [0, 0]
opened.release("large")
assert float(large[-1, -1]) == 1
print("read")
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    path = tmp_path_factory.mktemp("large") / "kontext_large.safetensors"
    shape = [LARGE // 2**20, 2**20]
    header = {
        "large": {"dtype": "F8_E4M3", "shape": shape, "data_offsets": [0, LARGE]},
        "small": {"dtype": "F32", "shape": [2], "data_offsets": [LARGE, LARGE + 8]},
        "flag": {"dtype": "U8", "shape": [1], "data_offsets": [LARGE + 8, LARGE + 9]},
        "odd": {"dtype": "BF16", "shape": [3], "data_offsets": [LARGE + 9, LARGE + 15]},
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        start = file.tell()
        file.truncate(start + LARGE + 15)
        file.seek(start + LARGE - 1)
        file.write(b"\x38")
    yield path
    path.unlink()


def opened(limit, path, *read_only):
    return subprocess.run([sys.executable, "-c", CODE, limit, str(path), *read_only], capture_output=True, text=True)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts these pages apart")
def test_a_file_larger_than_memory_is_read_in_place_and_its_vectors_may_be_changed(large):
    done = opened("RLIMIT_DATA", large)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "read" in done.stdout and "read in place" in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts these pages apart")
def test_a_file_that_nobody_writes_to_needs_no_memory_set_aside_and_is_no_reason_to_warn(large):
    done = opened("RLIMIT_DATA", large, "read only")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "read" in done.stdout and done.stderr == ""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps to this limit")
def test_a_file_that_cannot_be_opened_at_all_is_an_error_with_a_way_out(large):
    done = opened("RLIMIT_AS", large)
    assert done.returncode == 1
    assert "kontext_large.safetensors cannot be opened" in done.stderr and "page file" in done.stderr
    assert "Traceback" not in done.stderr
