"""The demo model inside a real ComfyUI: MODEL, CLIP and VAE, held to what trained it and to this pack's own readers."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch
from questions import INSIDE, Ask, question
from safetensors.torch import load_file

if INSIDE:
    import cards
    import comfy.model_management
    import comfy.sd
    from comfy_extras.nodes_flux import CLIPTextEncodeFlux
    from inside import POSITIVE, apart, folder, random, refusal, run
    from kontext_bridge.kontext.comfyui import companions
    from kontext_bridge.kontext.comfyui import load as comfyui
    from kontext_bridge.kontext.comfyui import sampler as comfyui_sampler
    from kontext_bridge.kontext.comfyui.carried import purpose_of
    from kontext_bridge.kontext.demo import shipped
    from kontext_bridge.kontext.fp8 import devices
    from kontext_bridge.nodes.local import work
    from kontext_bridge.nodes.local.demo_model import KontextLoadDemo
    from pretended_comfyui import comfyui_on, dynamic_vram

    import nodes

    DEMO = folder / "demo"
else:
    from tiny_demo import SAID, SEED, SIZE, STEPS, write_demo, write_expected
    from tiny_models import write_loras

pytestmark = pytest.mark.comfyui


@pytest.fixture(scope="module", autouse=True)
def demo(models: Path) -> None:
    write_expected(models / "demo", write_demo(models / "demo"))
    (models / "demo_loras").mkdir()
    write_loras(models / "demo_loras", SIZE)
    asked = {"said": SAID, "seed": SEED, "steps": STEPS}
    (models / "demo" / "asked.json").write_text(json.dumps(asked), encoding="utf-8")


def loaded() -> tuple[Any, Any, Any, str]:
    with mock.patch.object(shipped, "FOLDER", DEMO):
        model, clip, vae, told = KontextLoadDemo.execute().args
    return model, clip, vae, told


def expected() -> dict[str, torch.Tensor]:
    return load_file(DEMO / "expected.safetensors")


def asked() -> Any:
    return json.loads((DEMO / "asked.json").read_text(encoding="utf-8"))


@question
def description() -> Any:
    return loaded()[3]


def test_a_demo_that_does_not_say_what_it_is_is_noticed(ask: Ask) -> None:
    told = ask(description)
    assert "128x128" in told and "not FLUX.1 Kontext" in told and "float8_e4m3fn" in told


@question
def encodings() -> Any:
    _, clip, _, _ = loaded()
    said, right = asked()["said"], expected()
    told = {}
    ways = {
        "CLIPTextEncode": nodes.CLIPTextEncode().encode(clip, said)[0],
        "CLIPTextEncodeFlux": CLIPTextEncodeFlux.execute(clip, said, said, 2.5).args[0],
        "another run": nodes.CLIPTextEncode().encode(clip, said)[0],
        "Kontext Edit": work._encoded(clip, said),
        "a clone": nodes.CLIPTextEncode().encode(clip.clone(), said)[0],
        "a LoRA for other encoders": nodes.CLIPTextEncode().encode(
            comfy.sd.load_lora_for_models(None, clip, {}, 0, 1.0)[1], said
        )[0],
        "CLIP Set Last Layer": nodes.CLIPTextEncode().encode(
            nodes.CLIPSetLastLayer().set_last_layer(clip, -2)[0], said
        )[0],
    }
    for way, ((states, options),) in ways.items():
        told[way] = [
            apart(states.float(), right["states"]),
            apart(options["pooled_output"].float(), right["summary"]),
            list(states.shape),
            states.device.type,
        ]
    return told


def test_another_encoding_than_the_trained_encoders_is_noticed(ask: Ask) -> None:
    for way, (states, summary, shape, device) in ask(encodings).items():
        assert states < 1e-3 and summary < 1e-3, way
        assert shape == [1, 16, 128] and device == "cpu", way


@question
def two_sentences() -> Any:
    _, clip, _, _ = loaded()
    both = CLIPTextEncodeFlux.execute(clip, "make it night", "paint the boat red", 2.5).args[0][0]
    one, other = (nodes.CLIPTextEncode().encode(clip, said)[0][0] for said in ("make it night", "paint the boat red"))
    return [apart(both[0], other[0]), apart(both[1]["pooled_output"], one[1]["pooled_output"]), apart(one[0], other[0])]


def test_a_summary_and_states_of_the_wrong_sentence_are_noticed(ask: Ask) -> None:
    states, summary, differ = ask(two_sentences)
    assert states < 1e-5 and summary < 1e-5 and differ > 0.1


@question
def odd_sentences() -> Any:
    _, clip, _, _ = loaded()
    said = ["", "!?", "snow " * 100, "(red:1.3) embedding:nothing", "Zeichne \0 ein 船 🚤"]
    return [bool(torch.isfinite(nodes.CLIPTextEncode().encode(clip, one)[0][0][0]).all()) for one in said]


def test_a_sentence_that_has_no_known_word_or_too_many_gives_numbers_all_the_same(ask: Ask) -> None:
    assert ask(odd_sentences) == [True] * 5


@question
def pictures() -> Any:
    _, _, vae, _ = loaded()
    right = expected()
    latent = nodes.VAEEncode().encode(vae, right["picture"])[0]["samples"]
    decoded = nodes.VAEDecode().decode(vae, {"samples": right["latent"]})[0]
    tiled = nodes.VAEDecodeTiled().decode(vae, {"samples": right["latent"]}, 512)[0]
    return [
        apart(latent, right["latent"]),
        float((decoded - right["decoded"]).abs().max()),
        float((tiled - right["decoded"]).abs().max()),
        list(latent.shape),
        vae.latent_channels,
    ]


def test_another_picture_than_this_packs_own_reader_gives_is_noticed(ask: Ask) -> None:
    latent, decoded, tiled, shape, channels = ask(pictures)
    assert latent < 1e-3 and decoded < 1e-3 and tiled < 1e-3
    assert shape == [1, 16, 6, 8] and channels == 16


@question
def edits() -> Any:
    model, clip, _, _ = loaded()
    right, how = expected(), asked()
    positive = nodes.CLIPTextEncode().encode(clip, how["said"])[0]
    height, width = right["picture"].shape[1:3]
    ours = work.sample(model, positive, None, 1.0, [right["latent"]], width, height, how["steps"], 2.5, how["seed"])
    size = (height // 8, width // 8)
    with_reference = [
        [states, {**options, "reference_latents": [right["latent"]], "guidance": 2.5}] for states, options in positive
    ]
    stock = run(model, with_reference, steps=3, size=size)
    stock_loader = comfy.sd.load_diffusion_model(
        str(DEMO / shipped.TRANSFORMER), model_options={"dtype": torch.float32}
    )
    return {
        "our nodes, off ComfyUI": apart(ours, right["edit"]),
        "KSampler, by ComfyUI's own loader": apart(stock, run(stock_loader, with_reference, steps=3, size=size)),
        "shape": list(stock.shape),
    }


def test_another_edit_than_off_comfyui_is_noticed(ask: Ask, tables: dict[str, list[str]]) -> None:
    told = ask(edits)
    tables["the demo model in ComfyUI"] = [f"{name.ljust(40)} {value}" for name, value in told.items()]
    assert told["our nodes, off ComfyUI"] < 1e-3, "the text encoder's file has 16 bits"
    assert told["KSampler, by ComfyUI's own loader"] < 1e-3
    assert told["shape"] == [1, 16, 6, 8]


@question
def without_8_bit_floats() -> Any:
    """The latents of an edit with FP8 weights, and on a device without, as a Mac's GPU."""
    right, edits, told = expected(), [], ""
    for holds in True, False:
        with mock.patch.dict(devices._HOLDS, {torch.device("cpu"): holds}):
            model, clip, _, told = loaded()
            positive = nodes.CLIPTextEncode().encode(clip, asked()["said"])[0]
            edits.append(work.sample(model, positive, None, 1.0, [right["latent"]], 64, 48, 2, 2.5, 0))
            again = model.cached_patcher_init[0](*model.cached_patcher_init[1])
    dtypes = sorted({str(parameter.dtype) for parameter in again.model.diffusion_model.parameters()})
    return apart(edits[1], edits[0]), told, dtypes


def test_a_demo_that_a_mac_or_directml_cannot_keep_is_noticed(ask: Ask) -> None:
    strayed, told, dtypes = ask(without_8_bit_floats)
    assert strayed < 1e-5
    assert "which has no 8-bit floats" in told and not any("float8" in dtype for dtype in dtypes)


@question
def conditionings() -> Any:
    model, clip, _, _ = loaded()
    reference = expected()["latent"]
    one, other = (nodes.CLIPTextEncode().encode(clip, said)[0] for said in ("make it night", "add snow"))
    mixed = {
        "combine": nodes.ConditioningCombine().combine(one, other)[0],
        "concat": nodes.ConditioningConcat().concat(one, other)[0],
        "average": nodes.ConditioningAverage().addWeighted(one, other, 0.5)[0],
        "zero out": nodes.ConditioningZeroOut().zero_out(one)[0],
    }
    return {
        name: bool(torch.isfinite(work.sample(model, positive, None, 1.0, [reference], 64, 48, 1, 2.5, 0)).all())
        for name, positive in mixed.items()
    }


def test_a_conditioning_that_stock_nodes_mixed_and_that_cannot_be_sampled_is_noticed(ask: Ask) -> None:
    assert set(ask(conditionings).values()) == {True}


@question
def whole_edits() -> Any:
    model, clip, vae, _ = loaded()
    picture = torch.rand(1, 200, 300, 3, generator=torch.Generator().manual_seed(3))
    sampled, real = [], comfyui_sampler.sample
    said = {"prompt": "paint the boat red", "steps": 1, "guidance": 2.5, "seed": 1}

    def sample(model: Any, wanted: Any, *others: Any, **named: Any) -> Any:
        sampled.append([wanted.width, wanted.height])
        return real(model, wanted, *others, **named)

    told: dict[str, Any] = {}
    with mock.patch.object(comfyui_sampler, "sample", sample):
        for shape, keep in (("match_input_image", "off"), ("match_input_image", "auto"), ("1:1", "off")):
            made = work.edit(model, clip, vae, picture, aspect_ratio=shape, keep=keep, **said)
            about = json.loads(made.info)
            told[f"{shape} {keep}"] = [
                list(made.image.shape),
                list(made.raw.shape),
                about["model"],
                "keep" in about["edits"][0],
            ]
    return [told, sampled]


def test_an_edit_at_another_size_than_the_models_own_is_noticed(ask: Ask) -> None:
    told, sampled = ask(whole_edits)
    assert sampled == [[160, 112], [160, 112], [128, 128]]
    whole = [1, 200, 300, 3]
    assert told["match_input_image off"] == [whole, whole, "demo model", False]
    assert told["match_input_image auto"] == [whole, whole, "demo model", True]
    assert told["1:1 off"] == [[1, 128, 128, 3], [1, 128, 128, 3], "demo model", False]


@question
def purposes() -> Any:
    model, _, _, _ = loaded()
    with_lora = comfyui.load(DEMO / shipped.TRANSFORMER).model
    loras = comfy.utils.load_torch_file(str(folder / "demo_loras" / "kohya.safetensors"), safe_load=True)
    with_lora = comfy.sd.load_lora_for_models(with_lora, None, loras, 1.0, 0)[0]
    again = model.cached_patcher_init
    path = folder / "kontext_saved_demo.safetensors"
    comfy.sd.save_checkpoint(str(path), model)
    assert comfy.sd.load_diffusion_model(str(path)) is not None
    told = {
        "loaded": model,
        "saved by ComfyUI": comfyui.load(path).model,
        "a clone's clone": model.clone().clone(),
        "LoRA": with_lora,
        "loaded again by ComfyUI": again[0](*again[1]),
        "Kontext": comfyui.load(folder / "ours" / "kontext_legacy.safetensors").model,
        "another loader": comfy.sd.load_diffusion_model(str(folder / "dense" / "kontext_legacy.safetensors")),
    }
    return {name: [purpose_of(one).pixels, purpose_of(one).called] for name, one in told.items()}


def test_a_working_size_that_is_lost_on_the_way_is_noticed(ask: Ask) -> None:
    told = ask(purposes)
    assert told.pop("Kontext") == told.pop("another loader") == [1024 * 1024, None]
    assert len(told) == 5 and all(found == [128 * 128, "demo model"] for found in told.values()), told


@question
def far_too_large() -> Any:
    model, clip, _, _ = loaded()
    positive = nodes.CLIPTextEncode().encode(clip, "make it night")[0]
    reference = random(1, 16, 8, 8)
    return refusal(lambda: work.sample(model, positive, None, 1.0, [reference], 1024, 1024, 1, 2.5, 0))


def test_a_size_far_from_the_models_own_is_refused_with_what_to_set(ask: Ask) -> None:
    assert "Set megapixels to 0.016" in ask(far_too_large)


@question
def other_pairs() -> Any:
    model, clip, vae, _ = loaded()
    kontext, picture = comfyui.load(folder / "ours" / "kontext_legacy.safetensors").model, torch.rand(1, 48, 64, 3)
    stock_kontext = comfy.sd.load_diffusion_model(str(folder / "dense" / "kontext_legacy.safetensors"))
    stock_vae = SimpleNamespace(encode=lambda shown: random(1, 16, 6, 8), decode=lambda latent: picture)
    reads = type("Clip", (), {"tokenize": lambda _, said: said, "encode_from_tokens_scheduled": lambda *_: POSITIVE})()
    demos, reference = nodes.CLIPTextEncode().encode(clip, "make it night")[0], random(1, 16, 6, 8)
    how = {"prompt": "make it night", "aspect_ratio": "match_input_image", "steps": 1, "guidance": 2.5, "seed": 0}

    def edited(*parts: Any) -> Any:
        return lambda: work.edit(*parts, picture, **how)

    def sampled(by: Any, said: Any, latent: Any = reference) -> Any:
        return lambda: work.sample(by, said, None, 1.0, [latent], 64, 48, 1, 2.5, 0)

    return {
        "Edit, another VAE": refusal(edited(model, clip, stock_vae)),
        "Edit, its VAE with another": refusal(edited(kontext, reads, vae)),
        "Edit, another CLIP": refusal(edited(model, reads, vae)),
        "Edit, its CLIP with another": refusal(edited(kontext, clip, stock_vae)),
        "Sample, another CLIP": refusal(sampled(model, POSITIVE)),
        "Sample, its CLIP with another": refusal(sampled(kontext, demos)),
        "Sample, its CLIP with ComfyUI's": refusal(sampled(stock_kontext, demos)),
        "KSampler, another CLIP": refusal(lambda: run(model, POSITIVE, steps=1)),
        "KSampler, its CLIP with another": refusal(lambda: run(kontext.clone(), demos, steps=1)),
        "another latent": refusal(sampled(model, demos, random(1, 4, 6, 8))),
        "a latent of NaN": refusal(sampled(model, demos, reference * float("nan"))),
        "what belongs together": refusal(edited(model.clone(), clip.clone(), vae)),
    }


def test_what_belongs_to_another_model_and_is_sampled_with_or_fails_without_a_word_is_noticed(ask: Ask) -> None:
    told = ask(other_pairs)
    assert told.pop("what belongs together") is None
    for case, words in told.items():
        about = "VAE" if "VAE" in case else "text encoder is another model's" if "CLIP" in case else "with the vae of"
        assert words is not None and about in words and "Load Kontext Demo" in words, case


@question
def too_narrow() -> Any:
    model, clip, vae, _ = loaded()
    encoded = []
    how = {"prompt": "make it night", "aspect_ratio": "match_input_image", "steps": 1, "guidance": 2.5, "seed": 0}
    with mock.patch.object(vae, "encode", encoded.append):
        told = refusal(lambda: work.edit(model, clip, vae, torch.rand(1, 2, 3000, 3), **how))
    return [told, len(encoded)]


def test_a_strip_that_cannot_be_edited_and_is_encoded_all_the_same_is_noticed(ask: Ask) -> None:
    told, encoded = ask(too_narrow)
    assert "Crop the picture" in told and not encoded


@question
def other_loras() -> Any:
    model, _, _, _ = loaded()
    told = []
    for name in ("lora_unet_txt_in", "lora_unet_double_blocks_0_img_mod_lin", "transformer.x_embedder"):
        for inputs, outputs in ((3072, 3072), (128, 3072), (3072, 128)):
            state = {f"{name}.lora_down.weight": random(4, inputs), f"{name}.lora_up.weight": random(outputs, 4)}
            told.append(refusal(lambda state=state: comfy.sd.load_lora_for_models(model, None, state, 1.0, 0)))
    return told


def test_a_lora_of_another_models_size_by_the_stock_loader_is_refused_there(ask: Ask) -> None:
    assert all("was made for another model: for" in told for told in ask(other_loras))


@question
def spoilt_files() -> Any:
    from safetensors.torch import save_file

    told = []
    for spoil in (
        lambda vae: vae.pop("decoder.conv_out.bias"),
        lambda vae: vae.pop("encoder.conv_in.weight"),
        lambda vae: vae.update({"more": torch.zeros(1)}),
        lambda vae: vae["decoder.conv_in.bias"].fill_(float("nan")),
    ):
        tensors = load_file(DEMO / shipped.VAE)
        spoil(tensors)
        save_file(tensors, folder / "spoilt_vae.safetensors")
        told.append(refusal(lambda: companions.vae(folder / "spoilt_vae.safetensors")))
    (folder / "empty").mkdir(exist_ok=True)
    with mock.patch.object(shipped, "FOLDER", folder / "empty"):
        told.append(refusal(lambda: KontextLoadDemo.execute()))
    return told


def test_a_file_that_is_not_whole_and_is_loaded_all_the_same_is_noticed(ask: Ask) -> None:
    *vae, missing = ask(spoilt_files)
    assert all("spoilt_vae.safetensors" in told for told in vae), vae
    assert "kontext_demo_vae.safetensors" in missing


@question
def reloads() -> Any:
    _, clip, vae, _ = loaded()
    right = expected()
    found = []
    for patcher in (clip.patcher, vae.patcher):
        fresh, arguments = patcher.cached_patcher_init
        again = fresh(*arguments, disable_dynamic=True)
        same = {
            name: torch.equal(tensor, again.model.state_dict()[name])
            for name, tensor in patcher.model.state_dict().items()
        }
        found.append(all(same.values()))
    clip.patcher.load(torch.device("cpu"), lowvram_model_memory=1)
    with mock.patch.object(clip, "load_model"):
        low = nodes.CLIPTextEncode().encode(clip, asked()["said"])[0][0][0]
    found.append(apart(low, right["states"]) < 1e-3)
    clip = clip.clone(disable_dynamic=True)
    states = nodes.CLIPTextEncode().encode(clip, asked()["said"])[0][0][0]
    return [*found, apart(states, right["states"]), sorted(clip.get_sd())[0], len(vae.get_sd()) > 50]


def test_a_clip_and_a_vae_that_comfyui_cannot_load_again_are_noticed(ask: Ask) -> None:
    clip, vae, low, states, name, has_tensors = ask(reloads)
    assert clip and vae and low and states < 1e-3 and name.startswith("encoder.") and has_tensors


@question
def on_a_gpu() -> Any:
    """On a pretended GPU, where nothing is computed: shapes and places of what CLIP and VAE give."""
    told = []
    for room in None, float("inf"), 0.0:
        with comfyui_on(cards.RTX_40) as gpu, ExitStack() as stack:
            if room is not None:
                stack.enter_context(dynamic_vram(room))
            clip, vae = companions.clip(DEMO / shipped.TEXT), companions.vae(DEMO / shipped.VAE)
            given, real = [], type(clip.cond_stage_model.encoder).forward

            def forward(self: Any, numbers: torch.Tensor, real: Any = real, given: Any = given) -> Any:
                out = real(self, numbers)
                given.extend(one.device.type for one in (numbers, *out))
                return out

            with mock.patch.object(type(clip.cond_stage_model.encoder), "forward", forward):
                states, options = nodes.CLIPTextEncode().encode(clip, "make it night")[0][0]
            latent = vae.encode(torch.empty(1, 48, 64, 3))
            picture = vae.decode(torch.empty(1, 16, 6, 8))
            told.append(
                {
                    "dynamic": [clip.patcher.is_dynamic(), vae.patcher.is_dynamic()],
                    "computed on": sorted(set(given)) == [gpu.device.type],
                    "shapes": [list(one.shape) for one in (states, options["pooled_output"], latent, picture)],
                    "given on": sorted({one.device.type for one in (states, latent, picture)}),
                    "VAE computes in": str(vae.vae_dtype),
                }
            )
    return told


def test_a_clip_or_a_vae_that_does_not_come_to_the_gpu_is_noticed(ask: Ask) -> None:
    told = ask(on_a_gpu, "--use-pytorch-cross-attention")
    assert [one["dynamic"] for one in told] == [[False, False], [True, True], [True, True]]
    for one in told:
        assert one["computed on"] and one["given on"] == ["cpu"], one
        assert one["shapes"] == [[1, 16, 128], [1, 128], [1, 16, 6, 8], [1, 48, 64, 3]]
