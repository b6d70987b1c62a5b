"""Answers questions inside a real ComfyUI, in its own Python: answering.py TREE [ComfyUI's options]

The working folder holds the tiny models. Reads a line for each question, a JSON list of the test module that it stands
in and its name, and writes a line with its answer, or with the traceback of what went wrong. Started by `questions.py`.
"""

import importlib.util
import json
import os
import sys
import traceback
from functools import cache
from pathlib import Path
from unittest.mock import MagicMock

TREE, *OPTIONS = sys.argv[1:]
sys.argv = ["main.py", "--cpu", *OPTIONS]
sys.path.insert(0, TREE)
REPOSITORY = Path(__file__).resolve().parents[2]
# For the modules that tests of all folders share.
sys.path.append(str(REPOSITORY / "tests"))

# Answers alone go to standard output: whatever else is printed joins the log.
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)


# The package without its first file, which is for ComfyUI's search for nodes.
spec = importlib.util.spec_from_file_location(
    "kontext_bridge", REPOSITORY / "__init__.py", submodule_search_locations=[str(REPOSITORY)]
)
sys.modules["kontext_bridge"] = importlib.util.module_from_spec(spec)

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

import inside  # noqa: E402, F401  by which a test module knows where it is
import torch  # noqa: E402


@cache
def module(file):
    """A test module. ComfyUI's Python may have no pytest, and nothing of it is needed here."""
    spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    fresh = importlib.util.module_from_spec(spec)
    sys.modules["pytest"] = MagicMock()
    try:
        spec.loader.exec_module(fresh)
    finally:
        del sys.modules["pytest"]
    return fresh


for line in sys.stdin:
    try:
        file, name = json.loads(line)
        question = getattr(module(file), name)
        torch.manual_seed(0)
        with torch.inference_mode():
            told = json.dumps({"answer": question()})
    except Exception:
        told = json.dumps({"error": traceback.format_exc()})
    print(told, file=answers, flush=True)
