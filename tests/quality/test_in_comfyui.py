"""The demo model in a real ComfyUI does what it is told, by this pack's nodes and by ComfyUI's own sampler.

ComfyUI edits and writes what it made; it is judged here, by what judges the edits off ComfyUI.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from questions import INSIDE, Answering, question
from safetensors.torch import load_file, save_file

if INSIDE:
    import comfy.sd
    import comfy.utils
    from inside import folder
    from kontext_bridge.kontext.comfyui.lora import with_lora
    from kontext_bridge.kontext.demo import shipped
    from kontext_bridge.nodes.local import work
    from kontext_bridge.nodes.local.demo_model import KontextLoadDemo
    from kontext_bridge.nodes.pictures.prepare import KontextPrepare, KontextRestore

    import nodes
else:
    from demo_judge import LORA, Bounds, Edits, Judge, as_image, as_picture, exam, files, lantern_cases
    from kontext_bridge.training.autoencoder import SCALE, SHIFT
    from kontext_bridge.training.evaluate import Case, pictures
    from kontext_bridge.training.instructions import EditKind
    from kontext_bridge.training.scenes import FULL
    from mutations import BOUNDS, KINDS

pytestmark = pytest.mark.comfyui

STEPS = 8
TABLE = "held-out instructions in ComfyUI"
Host = tuple[Answering, Path]
Tables = dict[str, list[str]]


def asked_of(name: str) -> tuple[list[str], dict[str, torch.Tensor]]:
    """Inside ComfyUI: sentences and pictures of some cases."""
    return json.loads((folder / f"{name}.json").read_text()), load_file(folder / f"{name}.safetensors")


def put(name: str, asked: Sequence[Case], where: Path) -> None:
    """Outside: the same, to be found there."""
    shown = {"picture": [case.scene for case in asked]}
    if asked[0].second is not None:
        shown["second"] = [case.second for case in asked if case.second is not None]
    save_file(
        {key: as_image(pictures(scenes)).contiguous() for key, scenes in shown.items()}, where / f"{name}.safetensors"
    )
    (where / f"{name}.json").write_text(json.dumps([case.said for case in asked]))


def keep(name: str, latents: list[torch.Tensor], images: list[torch.Tensor], vae: Any, first: torch.Tensor) -> None:
    there = nodes.VAEEncode().encode(vae, first)[0]
    back = nodes.VAEDecode().decode(vae, there)[0]
    made = {"pictures": torch.cat(images), "round_trip": back, "there": there["samples"]}
    if latents:
        made["latents"] = torch.cat(latents)
    save_file({key: tensor.contiguous() for key, tensor in made.items()}, folder / f"{name}_made.safetensors")


def judged(
    way: str, name: str, asked: Sequence[Case], host: Host, tables: Tables, bounds: Bounds | None = None
) -> list[str]:
    made = load_file(host[1] / f"{name}_made.safetensors")
    judge = Judge(files(), asked)
    # Nodes that give pictures keep their latents to themselves.
    latents = (made["latents"] - SHIFT) * SCALE if "latents" in made else judge.latents_of(as_picture(made["pictures"]))
    edits = Edits(latents, as_picture(made["pictures"]), as_picture(made["round_trip"]))
    seen = judge(edits)
    faults = (bounds or BOUNDS).faults(seen)
    tables.setdefault(TABLE, []).append(f"{way:36} {seen}   {'; '.join(faults)}")
    return faults


def demo() -> tuple[Any, Any, Any]:
    model, clip, vae, _ = KontextLoadDemo.execute().args
    return model, clip, vae


def stock_edit(model: Any, clip: Any, said: str, reference: torch.Tensor, seed: int) -> torch.Tensor:
    """By ComfyUI's own nodes alone, but for the MODEL."""
    ((states, options),) = nodes.CLIPTextEncode().encode(clip, said)[0]
    positive = [[states, {**options, "reference_latents": [reference], "guidance": 2.5}]]
    latent = {"samples": torch.zeros_like(reference)}
    return nodes.KSampler().sample(model, seed, STEPS, 1.0, "euler", "simple", positive, positive, latent, 1.0)[0][
        "samples"
    ]


@question
def by_the_stock_sampler() -> None:
    said, shown = asked_of("single")
    model, clip, vae = demo()
    made = []
    for number, (sentence, picture) in enumerate(zip(said, shown["picture"], strict=True)):
        reference = nodes.VAEEncode().encode(vae, picture[None])[0]["samples"]
        made.append(stock_edit(model, clip, sentence, reference, number))
    images = [nodes.VAEDecode().decode(vae, {"samples": one})[0] for one in made]
    keep("stock", made, images, vae, shown["picture"][:1])


@question
def by_sample() -> None:
    said, shown = asked_of("two")
    model, clip, vae = demo()
    made = []
    for number, (sentence, *both) in enumerate(zip(said, shown["picture"], shown["second"], strict=True)):
        references = [nodes.VAEEncode().encode(vae, one[None])[0]["samples"] for one in both]
        positive = nodes.CLIPTextEncode().encode(clip, sentence)[0]
        height, width = both[0].shape[:2]
        made.append(work.sample(model, positive, None, 1.0, references, width, height, STEPS, 2.5, number))
    images = [nodes.VAEDecode().decode(vae, {"samples": one})[0] for one in made]
    keep("two", made, images, vae, shown["picture"][:1])


@question
def by_edit() -> None:
    said, shown = asked_of("single")
    model, clip, vae = demo()
    common = {"aspect_ratio": "match_input_image", "steps": STEPS, "guidance": 2.5}
    images = [
        work.edit(model, clip, vae, picture[None], prompt=sentence, seed=number, **common).image
        for number, (sentence, picture) in enumerate(zip(said, shown["picture"], strict=True))
    ]
    keep("edit", [], images, vae, shown["picture"][:1])


@question
def by_mask() -> None:
    said, shown = asked_of("masked")
    model, clip, vae = demo()
    mask = load_file(folder / "masked_mask.safetensors")["mask"]
    images = []
    for number, (sentence, picture) in enumerate(zip(said, shown["picture"], strict=True)):
        prepared, canvas, width, height = KontextPrepare.execute(
            picture[None], 128 * 128 / 2**20, 256, "match_input_image", mask[number][None]
        ).args
        reference = nodes.VAEEncode().encode(vae, prepared)[0]["samples"]
        positive = nodes.CLIPTextEncode().encode(clip, sentence)[0]
        latent = work.sample(model, positive, None, 1.0, [reference], width, height, STEPS, 2.5, number)
        decoded = nodes.VAEDecode().decode(vae, {"samples": latent})[0]
        images.append(KontextRestore.execute(decoded, canvas, 8).args[0])
    save_file({"pictures": torch.cat(images).contiguous()}, folder / "masked_made.safetensors")


@question
def by_lora() -> None:
    said, shown = asked_of("night")
    model, clip, vae = demo()
    path = shipped.demo_files().transformer.parent / (folder / "lora.txt").read_text()
    state = comfy.utils.load_torch_file(str(path), safe_load=True)
    ways = {"ours": with_lora(model, path, 1.0), "stock": comfy.sd.load_lora_for_models(model, None, state, 1.0, 0)[0]}
    for way, patched in ways.items():
        made = []
        for number, (sentence, picture) in enumerate(zip(said, shown["picture"], strict=True)):
            reference = nodes.VAEEncode().encode(vae, picture[None])[0]["samples"]
            made.append(stock_edit(patched, clip, sentence, reference, number))
        images = [nodes.VAEDecode().decode(vae, {"samples": one})[0] for one in made]
        keep(f"night_{way}", made, images, vae, shown["picture"][:1])


@pytest.fixture(scope="module")
def single(host: Host) -> list[Case]:
    asked = exam(FULL[0], 1, KINDS)
    put("single", asked, host[1])
    return asked


def test_a_wrong_edit_by_the_stock_sampler_is_noticed(single: list[Case], host: Host, tables: Tables) -> None:
    host[0].ask(by_the_stock_sampler)
    assert not judged("MODEL, KSampler", "stock", single, host, tables)


def test_a_wrong_edit_by_the_whole_node_is_noticed(single: list[Case], host: Host, tables: Tables) -> None:
    host[0].ask(by_edit)
    # Latents of decoded pictures have been through the VAE once more.
    bounds = replace(BOUNDS, contrast=0.03, brightness=0.03)
    assert not judged("Kontext Edit (Local FP8)", "edit", single, host, tables, bounds)


def test_a_second_picture_that_is_not_looked_at_is_noticed(host: Host, tables: Tables) -> None:
    asked = exam(FULL[0], 3, [EditKind.BORROW])
    put("two", asked, host[1])
    host[0].ask(by_sample)
    assert not judged("Kontext Sample, two pictures", "two", asked, host, tables)


def test_a_mask_that_lets_something_else_change_or_spoils_the_edit_is_noticed(host: Host) -> None:
    asked = exam((256, 256), 2, [EditKind.RECOLOUR])
    put("masked", asked, host[1])
    source, truth = (as_image(pictures([getattr(case, name) for case in asked])) for name in ("scene", "truth"))
    change = ((source - truth).abs().amax(-1) > 0.05).float()
    save_file({"mask": change}, host[1] / "masked_mask.safetensors")
    host[0].ask(by_mask)
    made = load_file(host[1] / "masked_made.safetensors")["pictures"]
    far = torch.nn.functional.max_pool2d(change, 17, 1, 8) == 0
    assert torch.equal(made[far], source[far])
    for number in range(len(asked)):
        inside = change[number] > 0
        missing = (made - truth)[number][inside].abs().mean() / (source - truth)[number][inside].abs().mean()
        assert missing < 0.4, asked[number].said


def test_a_lora_that_does_not_do_what_it_was_taught_is_noticed(host: Host, tables: Tables) -> None:
    if not (files().transformer.parent / LORA).is_file():
        pytest.skip(f"there is no {LORA} to judge by")
    asked = lantern_cases(FULL[0], 3)
    put("night", asked, host[1])
    (host[1] / "lora.txt").write_text(LORA)
    host[0].ask(by_lora)
    for way in ("ours", "stock"):
        assert not judged(f"LoRA, {way}", f"night_{way}", asked, host, tables), way
