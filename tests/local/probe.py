"""Asks a real ComfyUI about the local side, in ComfyUI's own Python: probe.py TREE FOLDER [ComfyUI's options]

FOLDER holds tiny models: `ours/` in every layout, `dense/` the same numbers in float32 for ComfyUI's own loader, and
`loras/`. Prints one JSON object: the name of each question and its answer. Started by conftest.py, which writes the
folder.
"""

import copy
import gc
import hashlib
import importlib.util
import inspect
import json
import logging
import operator
import pickle
import re
import sys
import weakref
from collections import OrderedDict
from pathlib import Path

TREE, FOLDER, *OPTIONS = sys.argv[1:]
sys.argv = ["main.py", "--cpu", *OPTIONS]
sys.path.insert(0, TREE)

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

import comfy.hooks  # noqa: E402
import comfy.lora  # noqa: E402
import comfy.lora_convert  # noqa: E402
import comfy.model_management  # noqa: E402
import comfy.model_patcher  # noqa: E402
import comfy.sample  # noqa: E402
import comfy.samplers  # noqa: E402
import comfy.sd  # noqa: E402
import comfy.utils  # noqa: E402
import torch  # noqa: E402
from comfy_extras import nodes_lora_extract, nodes_model_merging  # noqa: E402
from safetensors import safe_open  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

import nodes  # noqa: E402  isort: skip

REPOSITORY = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location(
    "kontext_bridge", REPOSITORY / "__init__.py", submodule_search_locations=[str(REPOSITORY)]
)
sys.modules["kontext_bridge"] = importlib.util.module_from_spec(spec)

from kontext_bridge.kontext.comfyui import load as comfyui  # noqa: E402
from kontext_bridge.kontext.comfyui import lora as comfyui_lora  # noqa: E402
from kontext_bridge.kontext.comfyui import patches as comfyui_patches  # noqa: E402
from kontext_bridge.kontext.comfyui import sampler as comfyui_sampler  # noqa: E402
from kontext_bridge.kontext.edit import LatentEdit  # noqa: E402
from kontext_bridge.kontext.errors import KontextError  # noqa: E402
from kontext_bridge.kontext.fp8 import devices  # noqa: E402
from kontext_bridge.kontext.fp8.compute import Compute  # noqa: E402
from kontext_bridge.kontext.fp8.formats import FORMATS  # noqa: E402
from kontext_bridge.kontext.schedule import schedule  # noqa: E402

logging.disable(logging.INFO)
torch.set_num_threads(1)
SAVED = (
    "legacy",
    "legacy_full_precision",
    "per_row",
    "plain_everything",
    "scaled_e5m2",
    "diffusers_scaled",
    "bfloat16",
)
folder = Path(FOLDER)
answers = {}


def ask(function):
    torch.manual_seed(0)
    answers[function.__name__] = function()
    return function


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def conditioning(*references, seed=1):
    options = {"pooled_output": random(1, 32, seed=seed), "guidance": 2.5}
    if references:
        options["reference_latents"] = list(references)
    return [[random(1, 7, 64, seed=seed + 1), options]]


REFERENCE = random(1, 16, 8, 12, seed=5)
POSITIVE = conditioning(REFERENCE)


def ours(layout="legacy", compute=Compute.AUTO):
    return comfyui.load(folder / "ours" / f"kontext_{layout}.safetensors", compute).model


def dense(layout="legacy"):
    path = str(folder / "dense" / f"kontext_{layout}.safetensors")
    return comfy.sd.load_diffusion_model(path, model_options={"dtype": torch.float32})


def run(model, positive=POSITIVE, *, sampler="euler", steps=4, size=(8, 12), start=None, denoise=1.0):
    latent = {"samples": torch.zeros(1, 16, *size) if start is None else start}
    (out,) = nodes.KSampler().sample(model, 7, steps, 1.0, sampler, "simple", positive, positive, latent, denoise)
    return out["samples"]


def apart(one, other):
    return float((one - other).norm() / other.norm())


def other_models():
    """A model that is no relation of the legacy one, and its numbers for ComfyUI's own loader."""
    paths = [folder / f"kontext_other_{kind}.safetensors" for kind in ("ours", "dense")]
    if not paths[0].exists():
        quantised, numbers = (load_file(folder / kind / "kontext_legacy.safetensors") for kind in ("ours", "dense"))
        for name in numbers:
            numbers[name] = numbers[name].flip(0)
            if quantised[name].dtype in FORMATS:
                quantised[name] = quantised[name].view(torch.uint8).flip(0).view(quantised[name].dtype)
                quantised[f"{name.removesuffix('weight')}scale_weight"] *= 1.25
                numbers[name] *= 1.25
            else:
                quantised[name] = quantised[name].flip(0)
        for path, tensors in zip(paths, (quantised, numbers), strict=True):
            save_file(tensors, path)
    return comfyui.load(paths[0]).model, comfy.sd.load_diffusion_model(str(paths[1]), {"dtype": torch.float32})


def saved(model, name):
    path = folder / f"kontext_saved_{name}.safetensors"
    comfy.sd.save_checkpoint(str(path), model)
    return path


def with_stock_lora(model, name, strength=1.0):
    state = comfy.utils.load_torch_file(str(folder / "loras" / name), safe_load=True)
    return comfy.sd.load_lora_for_models(model, None, state, strength, 0)[0]


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


def delta(tensors, name):
    if f"{name}.diff" in tensors:
        return tensors[f"{name}.diff"].float()
    return tensors[f"{name}.lora_up.weight"].float() @ tensors[f"{name}.lora_down.weight"].float()


def filed(table):
    save_file(dict(table), folder / "filed.safetensors")
    return load_file(folder / "filed.safetensors")


WITH_AND_WITHOUT_LORA = {
    "plain": lambda model: model,
    "lora": lambda model: with_stock_lora(model, "kohya.safetensors"),
}


def fp8_bytes(model):
    digest = hashlib.sha256()
    quantised = sorted((name, tensor) for name, tensor in model.model.named_parameters() if tensor.dtype in FORMATS)
    assert quantised
    for _, tensor in quantised:
        digest.update(tensor.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def forward(model):
    flux = model.model.diffusion_model
    arguments = {"context": random(1, 7, 64, seed=2), "y": random(1, 32), "guidance": torch.tensor([2.5])}
    return flux(random(1, 16, 8, 12, seed=3), torch.tensor([0.7]), ref_latents=[REFERENCE], **arguments)


def refusal(work):
    try:
        work()
    except KontextError as error:
        return str(error)
    return None


with torch.inference_mode():
    LAYOUTS = sorted(path.stem.removeprefix("kontext_") for path in (folder / "dense").iterdir())
    fp8 = "--supports-fp8-compute" in OPTIONS

    @ask
    def layouts():
        told = {}
        for layout in LAYOUTS:
            truth = run(dense(layout))
            stock = comfy.sd.load_diffusion_model(str(folder / "ours" / f"kontext_{layout}.safetensors"))
            told[layout] = {"ours": apart(run(ours(layout)), truth), "stock": apart(run(stock), truth)}
        return told

    @ask
    def twenty_steps():
        return apart(run(ours(), steps=20), run(dense(), steps=20))

    @ask
    def products():
        calls = []
        real = torch._scaled_mm
        torch._scaled_mm = lambda *args, **options: calls.append(1) or real(*args, **options)
        try:
            forward_of = {}
            for compute in Compute.AUTO, Compute.STORAGE:
                calls.clear()
                run(ours(compute=compute), steps=1)
                forward_of[compute.value] = len(calls)
        finally:
            torch._scaled_mm = real
        return forward_of

    @ask
    def without_row_wise_products():
        """How far a tensor-wise product strays in each layout, where torch was built with no other."""
        real = torch._scaled_mm

        def tensor_wise(*arguments, scale_a, scale_b, **options):
            if scale_a.numel() > 1 or scale_b.numel() > 1:
                raise NotImplementedError("row-wise is not built here")
            return real(*arguments, scale_a=scale_a, scale_b=scale_b, **options)

        known = dict(devices._KNOWN)
        devices._KNOWN.clear()
        torch._scaled_mm = tensor_wise
        try:
            told = {layout: apart(run(ours(layout)), run(dense(layout))) for layout in LAYOUTS}
            return {"apart": told, "info": comfyui.load(folder / "ours" / "kontext_legacy.safetensors").description}
        finally:
            torch._scaled_mm = real
            devices._KNOWN.clear()
            devices._KNOWN.update(known)

    @ask
    def a_product_that_fails_later():
        """A picture of a model whose FP8 products fail once it is loaded, and what is said where FP8 was demanded."""
        real, known = torch._scaled_mm, dict(devices._KNOWN)

        def fails(*_, **__):
            raise RuntimeError("no kernel for this GPU")

        model, demanded = ours(), ours(compute=Compute.FP8) if fp8 else None
        torch._scaled_mm = fails
        try:
            told = {"apart": apart(run(model), run(dense()))}
            devices._KNOWN.clear()
            devices._KNOWN.update(known)
            return told | ({"demanded": refusal(lambda: run(demanded))} if fp8 else {})
        finally:
            torch._scaled_mm = real
            devices._KNOWN.clear()
            devices._KNOWN.update(known)

    @ask
    def fp8_demanded():
        return refusal(lambda: ours(compute=Compute.FP8))

    @ask
    def guided_alone_and_in_a_batch():
        pictures = torch.cat([REFERENCE, 3 * random(1, 16, 8, 12, seed=8)])

        def sampled(pictures, seed):
            edit = LatentEdit(96, 64, steps=2, batch=len(pictures), true_cfg=3.0)
            negative = conditioning(seed=9)
            return comfyui_sampler.sample(ours(), edit, conditioning(), [pictures], seed=seed, negative=negative)

        return apart(sampled(pictures, 3)[1:], sampled(pictures[1:], 4))

    if not fp8:

        @ask
        def without_8_bit_floats():
            """What is said of an FP8 file on a device that has none, and how far a 16-bit one strays there."""
            devices._HOLDS[torch.device("cpu")] = False
            try:
                loaded = comfyui.load(folder / "ours" / "kontext_bfloat16.safetensors")
                path = str(folder / "ours" / "kontext_bfloat16.safetensors")
                truth = comfy.sd.load_diffusion_model(path, model_options={"dtype": torch.float32})
                kept = {str(p.dtype) for p in loaded.model.model.parameters() if p.ndim == 2}
                told = {"apart": apart(run(loaded.model), run(truth)), "kept": sorted(kept), "info": loaded.description}
                return told | {"refused": refusal(ours)}
            finally:
                del devices._HOLDS[torch.device("cpu")]

        @ask
        def description():
            return comfyui.load(folder / "ours" / "kontext_legacy.safetensors").description

        @ask
        def two_references():
            both = conditioning(REFERENCE, random(1, 16, 12, 6, seed=6))
            return apart(run(ours(), both), run(dense(), both))

        @ask
        def other_samplers():
            names = ("heun", "dpmpp_2m", "dpmpp_2s_ancestral", "uni_pc")
            return {name: apart(run(ours(), sampler=name), run(dense(), sampler=name)) for name in names}

        @ask
        def upscaled():
            def twice(model):
                small = run(model)
                large = torch.nn.functional.interpolate(small, scale_factor=2)
                return run(model, start=large, denoise=0.5)

            return apart(twice(ours()), twice(dense()))

        @ask
        def classifier_free_guidance():
            def guided(model):
                negative = conditioning(REFERENCE, seed=9)
                latent = {"samples": torch.zeros(1, 16, 8, 12)}
                (out,) = nodes.KSampler().sample(model, 7, 3, 3.0, "euler", "simple", POSITIVE, negative, latent)
                return out["samples"]

            return apart(guided(ours()), guided(dense()))

        @ask
        def another_model_in_between():
            model = ours()
            first = run(model)
            comfy.model_management.unload_all_models()
            run(dense("per_row"))
            return bool(torch.equal(first, run(model)))

        @ask
        def loads_of_two_runs():
            seen = []
            real = comfyui_patches._loaded
            comfyui_patches._loaded = lambda *arguments: seen.append(1) or real(*arguments)
            try:
                model = ours()
                run(model)
                run(model, conditioning(REFERENCE, seed=4))
            finally:
                comfyui_patches._loaded = real
            return len(seen)

        @ask
        def stock_lora():
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

        @ask
        def own_lora():
            told = {}
            for name in ("kohya.safetensors", "diffusers.safetensors"):
                model, path = ours(), folder / "loras" / name
                told[name] = apart(
                    run(comfyui_lora.with_lora(model, path, 0.7)), run(with_stock_lora(model, name, 0.7))
                )
            return told

        @ask
        def spelled_loras():
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
                    figures.append(
                        difference(model, read, comfyui_lora.with_lora(model, folder / "one.safetensors", 1.0))
                    )
                told[path.stem] = figures
            return told

        @ask
        def loras_named_twice():
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

        @ask
        def other_kinds():
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

        @ask
        def own_lora_on_a_stock_model():
            path = folder / "loras" / "kohya.safetensors"
            model = dense()
            return apart(run(comfyui_lora.with_lora(model, path, 0.7)), run(with_stock_lora(model, path.name, 0.7)))

        @ask
        def two_loras():
            def both(model):
                return with_stock_lora(with_stock_lora(model, "kohya.safetensors", 0.5), "diffusers.safetensors", -0.4)

            return apart(run(both(ours())), run(both(dense())))

        @ask
        def lora_taken_off_again():
            model = ours()
            before, bytes_before = run(model), fp8_bytes(model)
            changed = with_stock_lora(model, "kohya.safetensors")
            during = apart(run(changed), before)
            same_bytes = fp8_bytes(model) == bytes_before
            return {"during": during, "same": bool(torch.equal(before, run(model))), "bytes": same_bytes}

        @ask
        def low_memory():
            told = {}
            for name, patched in WITH_AND_WITHOUT_LORA.items():
                model, truth = patched(ours()), patched(dense())
                cpu = torch.device("cpu")
                comfy.model_management.load_models_gpu([truth])
                expected = forward(truth)
                for share in (0.0, 0.5):
                    model.load(cpu, lowvram_model_memory=int(model.model_size() * share) + 1)
                    told[f"{name} {share}"] = apart(forward(model), expected)
                    model.unpatch_model(cpu)
                model.load(cpu, full_load=True)
                told[f"{name} whole"] = apart(forward(model), expected)
                model.partially_unload(cpu, model.model_size() // 2)
                told[f"{name} half given back"] = apart(forward(model), expected)
                model.detach()
            return told

        @ask
        def weight_wrapper():
            def doubled(model):
                changed = model.clone()
                changed.add_weight_wrapper("diffusion_model.single_blocks.0.linear1.weight", lambda weight: weight * 2)
                return changed

            return apart(run(doubled(ours())), run(doubled(dense())))

        @ask
        def scheduled_lora():
            state = comfy.utils.load_torch_file(str(folder / "loras" / "kohya.safetensors"), safe_load=True)
            hooks = comfy.hooks.create_hook_lora(lora=state, strength_model=1.0, strength_clip=0.0)
            hooked = comfy.hooks.set_hooks_for_conditioning(POSITIVE, hooks)
            return refusal(lambda: run(ours(), hooked))

        @ask
        def weight_read_out():
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

        @ask
        def extracted():
            """Extract and Save LoRA, of the difference of two models and of a model alone, loaded whole and in part."""
            (mine, truth), told = other_models(), {}
            apart_from = {
                "difference": lambda one, two: nodes_model_merging.ModelSubtract().merge(one, two, 1.0)[0],
                "model": lambda one, two: one,
                "lora": lambda one, two: with_stock_lora(one, "kohya.safetensors"),
            }
            for what, change in apart_from.items():
                for kind in nodes_lora_extract.LORAType:
                    expected = nodes_lora_extract.calc_lora_model(
                        change(dense(), truth), 8, "diffusion_model.", "diffusion_model.", {}, kind, bias_diff=True
                    )
                    for memory in "whole", "low":
                        model = change(ours(), mine)
                        if memory == "low":
                            model.load(torch.device("cpu"), lowvram_model_memory=1)
                            whole = comfy.model_management.load_models_gpu
                            comfy.model_management.load_models_gpu = lambda models: None
                        try:
                            got = nodes_lora_extract.calc_lora_model(
                                model, 8, "diffusion_model.", "diffusion_model.", {}, kind, bias_diff=True
                            )
                        finally:
                            if memory == "low":
                                comfy.model_management.load_models_gpu = whole
                        told[f"{what} {kind.name} {memory}"] = {
                            "same names": got.keys() == expected.keys(),
                            "apart": max(
                                apart(delta(got, name), delta(expected, name))
                                for name in {
                                    key.removesuffix(".diff").removesuffix(".lora_up.weight") for key in expected
                                }
                                if not name.endswith((".diff_b", ".weight"))
                            ),
                        }
            return told

        @ask
        def weights_read_out():
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

        @ask
        def tables_of_weights():
            """What a table of weights keeps and lists, and how large ComfyUI takes the model to be by it."""
            model, name = ours(), "diffusion_model.double_blocks.0.img_attn.qkv.weight"
            kept = sum(tensor.nbytes for tensor in model.model.parameters())
            kept += sum(tensor.nbytes for tensor in model.model.buffers())
            written = model.model_state_dict()
            written[name] = random(2)
            flux = model.model.diffusion_model
            return {
                "written": [
                    bool(torch.equal(table[name], random(2))) for table in (written, written | {}, dict(written))
                ],
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

        @ask
        def saved_and_read_again():
            told = {}
            for layout in SAVED:
                model = ours(layout)
                path = saved(model, layout)
                again = comfyui.load(path).model
                with safe_open(path, "pt") as file:
                    hints = [
                        json.loads(bytes(file.get_tensor(name).tolist()))
                        for name in file.keys()  # noqa: SIM118
                        if name.endswith(".comfy_quant")
                    ]
                told[layout] = {
                    "ours": apart(run(again, steps=2), run(model, steps=2)),
                    "bytes": fp8_bytes(again) == fp8_bytes(model),
                    "stock": apart(run(comfy.sd.load_diffusion_model(str(path)), steps=2), run(dense(layout), steps=2)),
                    "full precision": {hint.get("full_precision_matrix_mult", False) for hint in hints} == {True},
                }
            return told

        @ask
        def saved_from_low_memory():
            model = ours()
            path = folder / "kontext_saved_low.safetensors"
            model.load(torch.device("cpu"), lowvram_model_memory=model.model_size() // 2)
            comfy.utils.save_torch_file(model.state_dict_for_saving(), str(path))
            model.detach()
            return apart(run(comfyui.load(path).model), run(ours()))

        @ask
        def saved_changed():
            merged = nodes_model_merging.ModelMergeSimple().merge(ours(), other_models()[0], 0.5)[0]
            changed = {
                "lora": with_stock_lora(ours(), "kohya.safetensors"),
                "lokr": with_stock_lora(ours(), "lokr.safetensors"),
                "merge": merged,
            }
            told = {}
            for name, model in changed.items():
                told[name] = refusal(lambda model=model, name=name: saved(model, name))
                run(model)
                told[f"{name} after a run"] = refusal(lambda model=model, name=name: saved(model, name))
            return {"told": told, "files": [name for name in changed if list(folder.glob(f"kontext_saved_{name}.*"))]}

        @ask
        def merged():
            (_, other), plain = other_models(), dense()
            merging = {
                "simple": lambda one, two: nodes_model_merging.ModelMergeSimple().merge(one, two, 0.6)[0],
                "subtract": lambda one, two: nodes_model_merging.ModelSubtract().merge(one, two, 0.5)[0],
                "add": lambda one, two: nodes_model_merging.ModelAdd().merge(one, two)[0],
            }
            told = {}
            for name, merge in merging.items():
                one = ours()
                before = run(one)
                together, truth = merge(one, other_models()[0]), merge(plain, other)
                expected = run(truth)
                told[name] = {
                    "apart": apart(run(together), expected),
                    "effect": apart(expected, run(plain)),
                    "taken off again": bool(torch.equal(run(one), before)),
                }
                comfy.model_management.load_models_gpu([truth])
                step = forward(truth)
                comfy.model_management.load_models_gpu([together])
                told[name]["step"] = apart(forward(together), step)
                together.detach()
                together.load(torch.device("cpu"), lowvram_model_memory=1)
                told[name]["low memory"] = apart(forward(together), step)
                together.detach()
            return told

        @ask
        def dropped_while_loaded():
            told = {}
            for name, patched in WITH_AND_WITHOUT_LORA.items():
                model = patched(ours())
                run(model)
                layers = {name: weakref.ref(layer) for name, layer in comfyui_patches.layers_of(model)}
                gc.collect()
                gc.disable()
                del model
                told[name] = [name for name, layer in layers.items() if layer() is not None]
                gc.enable()
            return told

        @ask
        def branches_stay_beside_their_weights():
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

        @ask
        def cast_whole():
            model = ours()
            before, numbers = fp8_bytes(model), run(model)
            model.model.diffusion_model.to(torch.float16).to(torch.bfloat16)
            return {"bytes": fp8_bytes(model) == before, "apart": apart(run(model), numbers)}

        @ask
        def foreseen_steps():
            def modulation_runs(run_model, model):
                seen = []
                steps = model.model.diffusion_model.kontext_bridge_steps
                real = steps.look_up

                def counting(layer, x, compute):
                    return real(layer, x, lambda rows: seen.append(rows[..., 0].numel()) or compute(rows))

                steps.look_up = counting
                out = run_model(model)
                steps.look_up = real
                return out, seen

            def without(model):
                changed = model.clone()
                changed.remove_wrappers_with_key("diffusion_model", "kontext_bridge")
                return changed

            def replaced(model):
                changed = model.clone()
                changed.set_model_patch_replace(
                    lambda args, extra: extra["original_block"](args), "dit", "double_block", 0
                )
                return changed

            def guided(model):
                latent = {"samples": torch.zeros(1, 16, 8, 12)}
                negative = conditioning(REFERENCE, seed=9)
                (out,) = nodes.KSampler().sample(model, 7, 3, 3.0, "euler", "simple", POSITIVE, negative, latent)
                return out["samples"]

            model = ours()
            first, once = modulation_runs(run, model)
            _, again = modulation_runs(lambda model: run(model, steps=4), model)
            more, other = modulation_runs(lambda model: run(model, conditioning(REFERENCE, seed=4)), model)
            aside, every = modulation_runs(lambda model: run(replaced(model)), model)
            between = modulation_runs(lambda model: run(model, sampler="dpm_2"), model)[0]
            return {
                "rows a layer": sorted(set(once)),
                "layers": len(once),
                "again": len(again),
                "another prompt": [len(other), apart(more, run(without(model), conditioning(REFERENCE, seed=4)))],
                "aside": [sorted(set(every)), len(every), apart(aside, first)],
                "apart": apart(first, run(without(model))),
                "unannounced levels": apart(between, run(without(model), sampler="dpm_2")),
                "guided": apart(guided(model), guided(without(model))),
            }

        @ask
        def foreseen_in_16_bits():
            model = ours().clone()
            model.set_model_compute_dtype(torch.bfloat16)
            without = model.clone()
            without.remove_wrappers_with_key("diffusion_model", "kontext_bridge")
            expected = run(without, steps=8)
            return {"apart": apart(run(model, steps=8), expected), "rounded": apart(expected, run(ours(), steps=8))}

        @ask
        def last_block():
            def rows_of(model, *inputs):
                seen = []
                layers = dict(comfyui_patches.layers_of(model))
                for name in "linear1", "linear2":
                    layer = layers[f"diffusion_model.single_blocks.1.{name}"]
                    real = layer._multiply

                    def counting(x, weight, *rest, real=real, name=name):
                        seen.append([name, x.shape[1], weight.shape[0]])
                        return real(x, weight, *rest)

                    layer._multiply = counting
                out = run(model, *inputs, steps=1)
                for name in "linear1", "linear2":
                    del layers[f"diffusion_model.single_blocks.1.{name}"]._multiply
                return out, seen

            def patched(model):
                changed = model.clone()
                changed.set_model_attn1_output_patch(lambda out, options: out)
                return changed

            model, plain = ours(), []
            both = conditioning(REFERENCE, random(1, 16, 11, 6, seed=6))
            for positive in (conditioning(), POSITIVE, both):
                out, seen = rows_of(model, positive)
                full, every = rows_of(patched(model), positive)
                plain.append({"seen": seen, "every": every, "apart": apart(out, full)})
            lora = with_stock_lora(model, "kohya.safetensors")
            return {"plain": plain, "lora": apart(rows_of(lora, both)[0], rows_of(patched(lora), both)[0])}

        @ask
        def last_in_dynamic_vram():
            model = ours()
            asked = "get_dynamic_vram__units" in inspect.getsource(comfy.model_patcher)
            first, last = model.model.get_dynamic_vram__units()
            names = {id(layer): name for name, layer in comfyui_patches.layers_of(model)}
            return {"asked": asked, "first": len(first), "last": sorted(names[id(layer)] for layer in last)}

        @ask
        def built_again_for_another_gpu():
            model = ours()
            function, arguments = model.cached_patcher_init[:2]
            return bool(torch.equal(run(function(*arguments)), run(model)))

        @ask
        def own_sampler():
            edit = LatentEdit(96, 64, steps=4)
            ours_out = comfyui_sampler.sample(ours(), edit, conditioning(), [REFERENCE], seed=11)
            noise = torch.randn(1, 16, 8, 12, generator=torch.Generator().manual_seed(11))
            sampler = comfy.samplers.sampler_object("euler")
            theirs = comfy.sample.sample_custom(
                dense(), noise, 1.0, sampler, schedule(4, 24), POSITIVE, POSITIVE, torch.zeros_like(noise), seed=11
            )
            return apart(ours_out, theirs)

        @ask
        def own_sampler_alone_and_in_a_batch():
            pictures = torch.cat([REFERENCE, random(1, 16, 8, 12, seed=8)])
            both = comfyui_sampler.sample(
                ours(), LatentEdit(96, 64, steps=2, batch=2), conditioning(), [pictures], seed=3
            )
            alone = comfyui_sampler.sample(ours(), LatentEdit(96, 64, steps=2), conditioning(), [pictures[1:]], seed=4)
            return apart(both[1:], alone)

        @ask
        def own_sampler_refusals():
            model = ours()

            def sampled(references=(REFERENCE,), positive=None, **settings):
                edit = LatentEdit(96, 64, **{"steps": 2, **settings})
                return lambda: comfyui_sampler.sample(model, edit, positive or conditioning(), references, seed=0)

            nonsense = conditioning()
            nonsense[0][0] = nonsense[0][0] * float("nan")
            return {
                "cfg": refusal(sampled(true_cfg=3.0)),
                "channels": refusal(sampled([torch.zeros(1, 4, 8, 8)])),
                "batch": refusal(sampled([torch.zeros(3, 16, 8, 8)])),
                "nan": refusal(sampled(positive=nonsense)),
            }

        @ask
        def out_of_memory():
            model = ours().clone()

            def full(*_, **__):
                raise torch.OutOfMemoryError("no room")

            model.add_wrapper_with_key("diffusion_model", "test", full)
            real = comfy.model_management.get_free_memory
            comfy.model_management.get_free_memory = lambda *a, **k: 3e8
            try:
                return refusal(
                    lambda: comfyui_sampler.sample(
                        model, LatentEdit(1024, 1024, steps=2), conditioning(), [REFERENCE], seed=0
                    )
                )
            finally:
                comfy.model_management.get_free_memory = real

        @ask
        def free_memory_after_a_failed_step():
            model, alive = ours(), []
            real = comfy.model_management.get_free_memory

            def full(x, *_):
                activations.append(weakref.ref(x))
                raise torch.OutOfMemoryError("no room")

            def free(*arguments):
                if not activations:
                    return real(*arguments)
                alive.extend(x() is not None for x in activations)
                return 3e8

            activations = []
            dict(comfyui_patches.layers_of(model))["diffusion_model.single_blocks.1.linear2"]._multiply = full
            comfy.model_management.get_free_memory = free
            try:
                refusal(
                    lambda: comfyui_sampler.sample(
                        model, LatentEdit(96, 64, steps=2), conditioning(), [REFERENCE], seed=0
                    )
                )
            finally:
                comfy.model_management.get_free_memory = real
            return alive


json.dump(answers, sys.stdout)
