"""The MODEL's weights as other nodes of a real ComfyUI read them."""

from __future__ import annotations

import copy
import operator
import pickle
from collections import OrderedDict
from typing import Any

import pytest
import torch
from questions import INSIDE, SAME, Ask, question
from safetensors.torch import load_file, save_file

if INSIDE:
    import comfy.model_management
    from inside import WITH_AND_WITHOUT_LORA, apart, dense, folder, ours, random, run, with_stock_lora

pytestmark = pytest.mark.comfyui


def filed(table):
    save_file(dict(table), folder / "filed.safetensors")
    return load_file(folder / "filed.safetensors")


@question
def weight_read_out() -> Any:
    told = {}
    for name, change in {
        **WITH_AND_WITHOUT_LORA,
        "lokr": lambda m: with_stock_lora(m, "lokr.safetensors"),
    }.items():
        mine, truth = change(ours()), change(dense())
        keys = [key for key in truth.model_state_dict("diffusion_model.") if key.endswith("linear1.weight")]
        keys += ["diffusion_model.img_in.weight"]
        run(mine, steps=1)
        loaded = mine.clone()
        for key in keys:
            wanted = truth.patch_weight_to_device(key, return_weight=True)
            ways = {
                "patched": loaded.patch_weight_to_device(key, return_weight=True),
                "listed": mine.model_state_dict()[key],
                "got": loaded.model_state_dict("diffusion_model.").get(key),
                "one of all": dict(mine.model_state_dict().items())[key],
                "of the module": mine.model.state_dict()[key],
            }
            for way, got in ways.items():
                told[f"{name} {way}"] = max(told.get(f"{name} {way}", 0), apart(got.float(), wanted))
    return told


def test_a_weight_that_is_read_out_as_raw_fp8_is_noticed(ask: Ask) -> None:
    told = ask(weight_read_out)
    assert len(told) == 15 and max(told.values()) < SAME, told


@question
def weights_read_out() -> Any:
    """The first number of a weight by each way of reading ComfyUI's table of them, less what it stands for."""
    model, name = ours(), "diffusion_model.double_blocks.0.img_attn.qkv.weight"
    truth = dense().model_state_dict()[name]
    ways = {
        "one": lambda table: table[name],
        "get": lambda table: table.get(name),
        "items": lambda table: dict(table.items())[name],
        "dict": lambda table: dict(table)[name],
        "unpacked": lambda table: {**table}[name],
        "copy": lambda table: table.copy()[name],
        "pop": lambda table: table.pop(name),
        "popitem": lambda table: dict(table.popitem() for _ in range(len(table)))[name],
        "setdefault": lambda table: table.setdefault(name),
        "or": lambda table: (table | {})[name],
        "or of another": lambda table: ({name: None} | table)[name],
        "or in place": lambda table: operator.ior(table, {"another": 0})[name],
        "copied": lambda table: copy.copy(table)[name],
        "copied in depth": lambda table: copy.deepcopy(table)[name],
        "pickled": lambda table: pickle.loads(pickle.dumps(table))[name],
        "ordered": lambda table: OrderedDict(table)[name],
        "filed": lambda table: filed(table)[name],
    }
    tables = {
        "patcher": lambda: model.model_state_dict(),
        "prefix": lambda: model.model_state_dict("diffusion_model.double_blocks.0."),
        "module": lambda: model.model.state_dict(),
        "named module": lambda: model.model.state_dict(keep_vars=True),
        "network": lambda: model.model.diffusion_model.state_dict(prefix="diffusion_model."),
    }
    told = {way: apart(read(model.model_state_dict()).float(), truth) for way, read in ways.items()}
    return told | {f"{way}'s": apart(table()[name].float(), truth) for way, table in tables.items()}


@pytest.mark.parametrize(
    "way",
    [
        *("one", "get", "items", "dict", "unpacked", "copy", "pop", "popitem", "setdefault"),
        *("or", "or of another", "or in place", "copied", "copied in depth", "pickled", "ordered", "filed"),
        *("patcher's", "prefix's", "module's", "named module's", "network's"),
    ],
)
def test_a_weight_read_out_of_the_model_that_is_its_bytes_and_not_its_numbers_is_noticed(way: str, ask: Ask) -> None:
    assert ask(weights_read_out)[way] < SAME


@question
def tables_of_weights() -> Any:
    """What a table of weights keeps and lists, and how large ComfyUI takes the model to be by it."""
    model, name = ours(), "diffusion_model.double_blocks.0.img_attn.qkv.weight"
    kept = sum(tensor.nbytes for tensor in model.model.parameters())
    kept += sum(tensor.nbytes for tensor in model.model.buffers())
    written = model.model_state_dict()
    written[name] = random(2)
    flux = model.model.diffusion_model
    return {
        "written": [bool(torch.equal(table[name], random(2))) for table in (written, written | {}, dict(written))],
        "other's": bool(torch.equal((model.model_state_dict() | {name: random(2)})[name], random(2))),
        "beside": bool(torch.equal(({"other": random(2)} | model.model_state_dict())["other"], random(2))),
        "scales": [
            key
            for table in (model.model_state_dict(), model.model.state_dict(), flux.state_dict())
            for key in table
            if key.endswith("weight_scale")
        ],
        "size": [one.model_size() / kept for one in (model, model.clone(), ours())],
        "parts": comfy.model_management.module_size(flux.double_blocks[0].img_attn.qkv)
        / sum(one.nbytes for one in flux.double_blocks[0].img_attn.qkv.parameters()),
    }


def test_a_table_of_weights_that_forgets_what_is_written_into_it_is_noticed(ask: Ask) -> None:
    told = ask(tables_of_weights)
    assert told["written"] == [True] * 3 and told["other's"] is True and told["beside"] is True


def test_a_table_of_numbers_with_scales_that_would_be_applied_twice_is_noticed(ask: Ask) -> None:
    assert ask(tables_of_weights)["scales"] == []


def test_a_model_that_comfyui_measures_by_its_numbers_and_not_by_its_bytes_is_noticed(ask: Ask) -> None:
    told = ask(tables_of_weights)
    assert [round(size, 2) for size in told["size"]] == [1, 1, 1] and told["parts"] == 1
