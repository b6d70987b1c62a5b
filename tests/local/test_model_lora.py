"""LoRA on the MODEL inside a real ComfyUI, through ComfyUI's own loaders and through ours."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from questions import INSIDE, SAME, Ask, question
from safetensors.torch import save_file

if INSIDE:
    import comfy.hooks
    import comfy.lora
    import comfy.lora_convert
    import comfy.model_management
    import comfy.sd
    import comfy.utils
    from inside import POSITIVE, apart, dense, folder, fp8_bytes, ours, random, refusal, run, with_stock_lora
    from kontext_bridge.kontext.comfyui import lora as comfyui_lora
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
