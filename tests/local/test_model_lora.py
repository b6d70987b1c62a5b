"""LoRA on the MODEL inside a real ComfyUI, through ComfyUI's own loaders and through ours."""

from __future__ import annotations

import re
from typing import Any
from unittest.mock import MagicMock, patch

import pytest
import torch
from questions import INSIDE, SAME, Ask, question
from safetensors.torch import save_file
from torch.utils._python_dispatch import TorchDispatchMode

if INSIDE:
    import comfy.hooks
    import comfy.lora
    import comfy.lora_convert
    import comfy.model_management
    import comfy.model_patcher
    import comfy.sd
    import comfy.utils
    from inside import POSITIVE, apart, dense, folder, forward, fp8_bytes, ours, random, refusal, run, with_stock_lora
    from kontext_bridge.kontext.comfyui import lora as comfyui_lora
    from kontext_bridge.kontext.comfyui import numbers as comfyui_numbers
    from kontext_bridge.kontext.comfyui import patches as comfyui_patches

pytestmark = pytest.mark.comfyui


def lora_names(state):
    """The keys of a LoRA file by the layer that they are of."""
    found = {}
    for key in state:
        layer = re.split(r"[._]lora[._]|_?\.lora_|_?\.alpha$|\.processor\.", key)[0]
        found.setdefault(layer, []).append(key)
    return found


def difference(model, read, own):
    """How far apart ComfyUI's patches are from those of our own LoRA node, on empty weights."""
    theirs = model.clone()
    theirs.add_patches(read)
    worst = 0.0
    for key in {*theirs.patches, *own.patches}:
        empty = torch.zeros(comfy.utils.get_attr(model.model, key).shape)
        one, other = (comfy.lora.calculate_weight(m.patches.get(key, []), empty.clone(), key) for m in (own, theirs))
        worst = max(worst, apart(one, other))
    return worst


@question
def stock_lora() -> Any:
    told = {}
    for name in ("kohya.safetensors", "diffusers.safetensors", "lokr.safetensors"):
        plain, truth = ours(), dense()
        changed, expected = with_stock_lora(plain, name, 0.7), with_stock_lora(truth, name, 0.7)
        told[name] = {
            "apart": apart(run(changed), run(expected)),
            "effect": apart(run(changed) - run(plain), run(expected) - run(truth)),
        }
        run(changed)
        told[name]["beside"] = sum(len(layer.branches) for _, layer in comfyui_patches.layers_of(plain))
        told[name]["written_out"] = sum(bool(layer.dense) for _, layer in comfyui_patches.layers_of(plain))
    return told


@pytest.mark.parametrize("name", ["kohya", "diffusers"])
def test_a_lora_from_a_stock_loader_that_is_rounded_into_fp8_is_noticed(name: str, ask: Ask) -> None:
    told = ask(stock_lora)[f"{name}.safetensors"]
    assert told["effect"] < 1e-3, "merged into FP8 most of the effect is lost"
    assert told["beside"] > 0 and told["written_out"] == 0


def test_an_adapter_that_is_no_plain_lora_and_is_left_out_or_rounded_is_noticed(ask: Ask) -> None:
    told = ask(stock_lora)["lokr.safetensors"]
    assert told["effect"] < 1e-3
    assert told["beside"] == 0 and told["written_out"] > 0


@question
def two_loras() -> Any:
    def both(model):
        return with_stock_lora(with_stock_lora(model, "kohya.safetensors", 0.5), "diffusers.safetensors", -0.4)

    return apart(run(both(ours())), run(both(dense())))


def test_two_loras_that_do_not_add_up_are_noticed(ask: Ask) -> None:
    assert ask(two_loras) < SAME


@question
def own_lora() -> Any:
    told = {}
    for name in ("kohya.safetensors", "diffusers.safetensors"):
        model, path = ours(), folder / "loras" / name
        told[name] = apart(run(comfyui_lora.with_lora(model, path, 0.7)), run(with_stock_lora(model, name, 0.7)))
    return told


@question
def own_lora_on_a_stock_model() -> Any:
    path = folder / "loras" / "kohya.safetensors"
    model = dense()
    return apart(run(comfyui_lora.with_lora(model, path, 0.7)), run(with_stock_lora(model, path.name, 0.7)))


def test_a_lora_of_our_node_that_differs_from_the_stock_nodes_is_noticed(ask: Ask) -> None:
    assert all(figure < 1e-6 for figure in ask(own_lora).values())
    assert ask(own_lora_on_a_stock_model) < 1e-6


@question
def lora_taken_off_again() -> Any:
    model = ours()
    before, bytes_before = run(model), fp8_bytes(model)
    changed = with_stock_lora(model, "kohya.safetensors")
    during = apart(run(changed), before)
    same_bytes = fp8_bytes(model) == bytes_before
    return {"during": during, "same": bool(torch.equal(before, run(model))), "bytes": same_bytes}


def test_a_lora_that_stays_on_or_changes_the_files_bytes_is_noticed(ask: Ask) -> None:
    told = ask(lora_taken_off_again)
    assert told["during"] > 1e-3
    assert told["same"] is True and told["bytes"] is True


@question
def scheduled_lora() -> Any:
    state = comfy.utils.load_torch_file(str(folder / "loras" / "kohya.safetensors"), safe_load=True)
    hooks = comfy.hooks.create_hook_lora(lora=state, strength_model=1.0, strength_clip=0.0)
    hooked = comfy.hooks.set_hooks_for_conditioning(POSITIVE, hooks)
    return refusal(lambda: run(ours(), hooked))


def test_a_lora_that_cannot_be_exact_is_refused_with_what_to_do(ask: Ask) -> None:
    assert "Create Hook LoRA" in ask(scheduled_lora)


@question
def branches_stay_beside_their_weights() -> Any:
    model = with_stock_lora(ours(), "kohya.safetensors")
    comfy.model_management.load_models_gpu([model])
    # A second device that every machine has. The model is on the CPU, as a layer is that had no room.
    elsewhere = torch.device("meta")
    comfyui_patches._loaded(model, elsewhere)
    layers = dict(comfyui_patches.layers_of(model))
    held = {branch.down.device.type for layer in layers.values() for branch in layer.branches}
    layer = layers["diffusion_model.single_blocks.0.linear1"]
    layer.to(elsewhere)
    moved = {branch.up.device.type for branch in layer.branches}
    return {"held": sorted(held), "moved": sorted(moved)}


def test_lora_that_takes_the_gpus_memory_for_layers_that_are_not_there_is_noticed(ask: Ask) -> None:
    assert ask(branches_stay_beside_their_weights) == {"held": ["cpu"], "moved": ["meta"]}


@question
def merges_at_load() -> Any:
    """How often ComfyUI works out a patched weight while it loads, and how far the result is from its own model's."""
    calls = []
    real = comfy.lora.calculate_weight
    cpu = torch.device("cpu")
    ways = {
        "as a run does": lambda model: comfy.model_management.load_models_gpu([model]),
        "whole": lambda model: model.load(cpu, full_load=True),
        "half": lambda model: model.load(cpu, lowvram_model_memory=model.model_size() // 2),
        "half, all patched at once": lambda model: model.load(
            cpu, lowvram_model_memory=model.model_size() // 2, force_patch_weights=True
        ),
    }
    told = {}
    for name in ("kohya.safetensors", "diffusers.safetensors", "lokr.safetensors"):
        truth = with_stock_lora(dense(), name, 0.7)
        comfy.model_management.load_models_gpu([truth])
        expected = forward(truth)
        for way, load in ways.items():
            model = with_stock_lora(ours(), name, 0.7).clone()
            comfy.lora.calculate_weight = lambda *others, **named: calls.append(1) or real(*others, **named)
            try:
                load(model)
            finally:
                comfy.lora.calculate_weight = real
            told[f"{name} {way}"] = [len(calls), apart(forward(model), expected)]
            calls.clear()
            model.detach()
    return told


def test_a_merge_that_is_worked_out_at_load_and_thrown_away_is_noticed(ask: Ask) -> None:
    told = ask(merges_at_load)
    assert {way: calls for way, (calls, _) in told.items() if calls} == {}
    assert all(figure < SAME for _, figure in told.values()), told


@question
def memory_told() -> Any:
    """What ComfyUI counts for a model with LoRA, and what its tensors take, in bytes."""
    plain = ours()
    model = with_stock_lora(with_stock_lora(plain, "kohya.safetensors", 0.5), "diffusers.safetensors", -0.4)
    cpu = torch.device("cpu")

    def beside(loaded_only=False):
        layers = [layer for _, layer in comfyui_patches.layers_of(model)]
        some = [layer for layer in layers if not loaded_only or getattr(layer, "comfy_patched_weights", False)]
        return sum(tensor.nbytes for layer in some if layer.patches.beside for tensor in layer.patches.beside.tensors)

    def loaded():
        modules = [m for m in model.model.modules() if getattr(m, "comfy_patched_weights", False)]
        kept = sum(parameter.nbytes for m in modules for parameter in m.parameters(recurse=False))
        return kept + beside(loaded_only=True)

    told = {"size": [model.model_size() - plain.model_size()], "clone": [model.clone().clone().model_size()]}
    told["clone"].append(model.model_size())
    model.load(cpu, full_load=True)
    told["size"].append(beside())
    told["whole"], there = [model.loaded_size(), model.model_size()], loaded()
    model.partially_unload(cpu, model.model_size() // 3)
    told["given back"] = [model.model_size() - model.loaded_size(), there - loaded()]
    model.unpatch_model(cpu)
    budget = int(model.model_size() * 0.9)
    model.load(cpu, lowvram_model_memory=budget)
    told["in part"] = [model.loaded_size(), loaded()]
    told["is part"] = [0 < beside(loaded_only=True) < beside(), loaded() <= budget]
    model.detach()
    told["let go"] = [beside(), 0]
    return told


def test_lora_that_takes_memory_which_comfyui_does_not_know_of_is_noticed(ask: Ask) -> None:
    told = ask(memory_told)
    assert told.pop("is part") == [True, True]
    assert told["size"][0] > 0 and told["given back"][0] > 0
    assert {what: both for what, both in told.items() if both[0] != both[1]} == {}


class Moves(TorchDispatchMode):
    """Whether each copy of a matrix to the meta device would be waited for."""

    def __init__(self):
        super().__init__()
        self.waited_for = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out = function(*args, **kwargs)
        # Scales are numbers, and ComfyUI itself brings the weights.
        if function.overloadpacket.__name__ == "_to_copy" and out.is_meta and args[0].is_cpu and args[0].ndim == 2:
            self.waited_for.append(not kwargs.get("non_blocking"))
        return out


@question
def lora_without_room_on_the_gpu() -> Any:
    model = with_stock_lora(ours(), "kohya.safetensors")
    comfy.model_management.load_models_gpu([model])
    layer = dict(comfyui_patches.layers_of(model))["diffusion_model.single_blocks.0.linear1"]
    pinned, told = [], {}
    real = comfy.model_management.MAX_PINNED_MEMORY, torch.Tensor.pin_memory
    torch.Tensor.pin_memory = lambda tensor: pinned.append(tensor.nbytes) or tensor.clone()
    try:
        for most in 0, 2**40:
            comfy.model_management.MAX_PINNED_MEMORY = most
            layer.patch(layer.patches.moved(torch.clone))
            with Moves() as moves:
                for _ in range(3):
                    # A second device that every machine has, in place of a GPU.
                    layer(torch.empty(1, 9, layer.in_features, device="meta"))
            told[str(most > 0)] = [len(pinned), len(moves.waited_for), sum(moves.waited_for)]
    finally:
        comfy.model_management.MAX_PINNED_MEMORY, torch.Tensor.pin_memory = real
    return told


def test_lora_in_the_computers_memory_that_the_gpu_waits_for_is_noticed(ask: Ask) -> None:
    pinned, copies, waited_for = ask(lora_without_room_on_the_gpu)["True"]
    assert pinned > 0, "from ordinary memory the driver copies twice, and may wait"
    assert copies == 3 * pinned, "laid into such memory once, not for every step"
    assert waited_for == 0
    assert ask(lora_without_room_on_the_gpu)["False"] == [0, copies, 0]


@question
def under_dynamic_vram() -> Any:
    """Where things lie when ComfyUI's dynamic VRAM has loaded a model, its allocator being a stub."""
    # A second device that every machine has, in place of a GPU.
    gpu, calls = torch.device("meta"), []
    stock = with_stock_lora(ours(), "kohya.safetensors", 0.7)
    vbar, pins = MagicMock(), MagicMock()
    vbar.return_value = MagicMock(
        alloc=lambda size: (0, 0, size), free_memory=lambda _: 0, loaded_size=lambda: 0, prioritize=lambda: None
    )
    real = comfy.lora.calculate_weight
    comfy.lora.calculate_weight = lambda *others, **named: calls.append(1) or real(*others, **named)
    try:
        with (
            patch.object(comfy.model_patcher.comfy_aimdo.model_vbar, "ModelVBAR", vbar, create=True),
            patch.object(comfy.model_patcher.comfy_aimdo.host_buffer, "HostBuffer", pins, create=True),
        ):
            model = comfy.model_patcher.ModelPatcherDynamic(stock.model, gpu, torch.device("cpu"))
            comfyui_patches.follow_patches(model)
            comfyui_numbers.answer_with_numbers(model)
            size = model.model_size()
            model.patches, model.patches_uuid = stock.patches, stock.patches_uuid
            changed = model.clone()
            told = {"same size": changed.model_size() - size}
            changed.load(gpu)
            layers = [layer for _, layer in comfyui_patches.layers_of(changed)]
            faulted = [layer for layer in layers if hasattr(layer, "_v")]
            told["faulted"] = len(faulted)
            told["weights"] = sorted({layer.weight.device.type for layer in faulted})
            told["scales"] = sorted(
                {layer.weight_scale.device.type for layer in layers if layer.weight_scale is not None}
            )
            told["lora"] = sorted({one.up.device.type for layer in layers for one in layer.branches})
            told["patched when faulted"] = sum(layer.weight_lowvram_function is not None for layer in layers)
            told["merges"] = len(calls)
            changed.detach()
            told["let go"] = sum(bool(layer.patches) for layer in layers)
    finally:
        comfy.lora.calculate_weight = real
    return told


def test_lora_and_scales_that_are_not_where_dynamic_vram_brings_their_weights_are_noticed(ask: Ask) -> None:
    told = ask(under_dynamic_vram)
    assert told.pop("faulted") > 5
    assert told == {
        "same size": 0,
        "weights": ["cpu"],
        "scales": ["meta"],
        "lora": ["meta"],
        "patched when faulted": 0,
        "merges": 0,
        "let go": 0,
    }


@question
def spelled_loras() -> Any:
    """How far ours is from ComfyUI's Load LoRA of every spelling of every layer; None where it reads none."""
    model, told = dense(), {}
    for path in sorted((folder / "spelled").iterdir()):
        state = comfy.lora_convert.convert_lora(comfy.utils.load_torch_file(str(path), safe_load=True))
        if path.stem == "processors":
            # ComfyUI knows these by the last blocks of a whole model.
            state = comfy.lora_convert.convert_uso_lora(state)
        keys = comfy.lora.model_lora_keys_unet(model.model, {})
        # Each name of a layer is asked about alone, since ComfyUI lets the last of two names win.
        figures = []
        for name, wanted in lora_names(state).items():
            alone = {key: state[key] for key in wanted}
            read = comfy.lora.load_lora(alone, keys, log_missing=False) if name in keys else {}
            if not read:
                figures.append(None)
                continue
            save_file(alone, folder / "one.safetensors")
            figures.append(difference(model, read, comfyui_lora.with_lora(model, folder / "one.safetensors", 1.0)))
        told[path.stem] = figures
    return told


def test_a_spelling_that_comfyui_reads_and_we_read_otherwise_is_noticed(ask: Ask, tables: dict[str, list[str]]) -> None:
    told = ask(spelled_loras)
    figures = [figure for one in told.values() for figure in one]
    read = [figure for figure in figures if figure is not None]
    tables["Spellings of a LoRA's keys"] = [
        f"{len(told)} spellings, {len(figures)} layers' names in all. ComfyUI's Load LoRA reads {len(read)}, of which "
        f"{sum(figure < 1e-6 for figure in read)} are the same here."
    ]
    assert len(read) > 2000
    assert max(read) < 1e-6, {title: one for title, one in told.items() if any(f and f > 1e-6 for f in one)}


@question
def loras_named_twice() -> Any:
    """How far ours is from ComfyUI's Load LoRA of a file with the same matrices under two names of a layer."""
    model, told = dense(), {}
    names = {
        "one trainer": (
            "transformer.transformer_blocks.0.ff.net.0.proj",
            "transformer.transformer_blocks.0.ff.linear_in",
        ),
        "two trainers": ("diffusion_model.double_blocks.0.img_mlp.0", "lora_unet_double_blocks_0_img_mlp_0"),
    }
    for title, both in names.items():
        down, up = random(4, 128), random(512, 4, seed=1)
        state = {f"{name}.lora_A.weight": down.clone() for name in both}
        state |= {f"{name}.lora_B.weight": up.clone() for name in both}
        save_file(state, folder / "twice.safetensors")
        read = comfy.lora.load_lora(state, comfy.lora.model_lora_keys_unet(model.model, {}), log_missing=False)
        told[title] = difference(model, read, comfyui_lora.with_lora(model, folder / "twice.safetensors", 1.0))
    return told


@pytest.mark.parametrize("names", ["one trainer", "two trainers"])
def test_a_layer_under_two_names_that_counts_twice_is_noticed(names: str, ask: Ask) -> None:
    assert ask(loras_named_twice)[names] < 1e-6


@question
def other_kinds() -> Any:
    told = {}
    for path in sorted((folder / "kinds").iterdir()):
        state = comfy.utils.load_torch_file(str(path), safe_load=True)
        plain, truth = ours(), dense()
        told[path.stem] = {}
        for strength in (1.0, 0.7):
            expected = comfy.sd.load_lora_for_models(truth, None, state, strength, 0)[0]
            stock = comfy.sd.load_lora_for_models(plain, None, state, strength, 0)[0]
            own = comfyui_lora.with_lora(plain, path, strength)
            changed = run(expected, steps=2) - run(truth, steps=2)
            effect = {
                name: apart(run(model, steps=2) - run(plain, steps=2), changed)
                for name, model in (("stock", stock), ("own", own))
            }
            told[path.stem][str(strength)] = {
                **effect,
                "size": apart(run(expected, steps=2), run(truth, steps=2)),
            }
    return told


# ComfyUI adds to biases and norms in the file's own bfloat16.
_ROUNDED = {"bias": 5e-3, "norms": 6e-2, "norms set": 3e-2}


@pytest.mark.parametrize("node", ["own", "stock"])
def test_another_kind_of_adapter_that_is_not_what_comfyui_makes_of_it_is_noticed(node: str, ask: Ask) -> None:
    told = ask(other_kinds)
    assert len(told) == 15
    for kind, by_strength in told.items():
        for strength, figures in by_strength.items():
            assert figures["size"] > 1e-4, (kind, strength)
            assert figures[node] < _ROUNDED.get(kind, 5e-3), (kind, strength)
