"""The sampler against diffusers' own Kontext pipeline, and against itself with each saving switched off."""

import functools

import pytest
import torch
from kontext_bridge.kontext.checkpoint.layers import Naming
from kontext_bridge.kontext.checkpoint.lora import read_lora
from kontext_bridge.kontext.checkpoint.reading import read_checkpoint
from kontext_bridge.kontext.edit import LatentEdit
from kontext_bridge.kontext.errors import BadRequest, NonFinite, OutOfMemory, Stopped
from kontext_bridge.kontext.fp8.compute import Compute
from kontext_bridge.kontext.fp8.formats import dequantise
from kontext_bridge.kontext.latents import ReferenceMethod, noise, pack, positions, unpack
from kontext_bridge.kontext.schedule import schedule
from kontext_bridge.kontext.standalone import denoiser
from kontext_bridge.kontext.standalone.denoiser import Conditioning, Exact
from kontext_bridge.kontext.standalone.lora import attach, linears_of
from kontext_bridge.kontext.standalone.mount import mount
from kontext_bridge.kontext.standalone.sampler import sample
from safetensors.torch import save_file

EDIT = LatentEdit(width=96, height=64, steps=4, guidance=2.5, seed=7)


def relative(a, b):
    return ((a - b).norm() / b.norm()).item()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, weights, size):
    path = tmp_path_factory.mktemp("model") / "kontext_tiny.safetensors"
    scaled = {}
    for name, tensor in weights.items():
        if name.endswith(".weight") and "blocks" in name:
            scale = tensor.abs().max() / 448
            scaled[name], scaled[name.removesuffix(".weight") + ".scale_weight"] = (
                (tensor / scale).to(torch.float8_e4m3fn),
                scale,
            )
        else:
            scaled[name] = tensor
    save_file(scaled, path)
    return read_checkpoint(path)


@pytest.fixture
def model(checkpoint):
    return mount(checkpoint, dtype=torch.float32)


@pytest.fixture(scope="module")
def prompts(size):
    g = torch.Generator().manual_seed(3)

    def one():
        return Conditioning(torch.randn(1, 11, size.context, generator=g), torch.randn(1, size.pooled, generator=g))

    return one(), one()


@pytest.fixture(scope="module")
def reference():
    return torch.randn(1, 16, 8, 12, generator=torch.Generator().manual_seed(4))


@pytest.fixture(scope="module")
def lora_file(tmp_path_factory):
    g = torch.Generator().manual_seed(8)
    tensors = {}
    for name, rows, inputs in (
        ("double_blocks.0.img_attn.qkv", 384, 128),
        ("double_blocks.1.txt_mod.lin", 768, 128),
        ("single_blocks.1.linear2", 128, 640),
        ("final_layer.adaLN_modulation.1", 256, 128),
    ):
        tensors[f"diffusion_model.{name}.lora_A.weight"] = torch.randn(4, inputs, generator=g) / inputs**0.5
        tensors[f"diffusion_model.{name}.lora_B.weight"] = torch.randn(rows, 4, generator=g) * 0.2
    path = tmp_path_factory.mktemp("lora") / "style.safetensors"
    save_file(tensors, path)
    return path


def dequantised_pipeline(model):
    """diffusers' pipeline around plain float32 layers that hold what the FP8 layers and their LoRA stand for."""
    # seconds, which every process that collects the tests would take
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxKontextPipeline, FluxTransformer2DModel

    plain = FluxTransformer2DModel.from_config(dict(model.config))
    linears = linears_of(model)
    with torch.no_grad():
        for name, module in plain.named_modules():
            if name in linears:
                linear = linears[name]
                scale = torch.ones(()) if linear.scale is None else linear.scale
                weight = dequantise(linear.weight, scale, torch.float32)
                for branches in linear.branches.values():
                    for b in branches:
                        weight[b.offset : b.offset + b.up.shape[0]] += b.strength * (b.up @ b.down)
                module.weight.copy_(weight)
                module.bias.copy_(linear.bias)
            elif isinstance(module, torch.nn.RMSNorm):
                module.weight.copy_(model.get_submodule(name).weight)
    scheduler = FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15, base_image_seq_len=256, max_image_seq_len=4096
    )
    pipeline = FluxKontextPipeline(
        scheduler=scheduler,
        vae=None,
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=None,
        tokenizer_2=None,
        transformer=plain.eval(),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def diffusers_steps(model, edit, positive, reference, negative=None):
    """The latent after every step of diffusers' pipeline, and the sigmas that it used."""
    pipeline = dequantised_pipeline(model)
    steps = []

    def keep(pipe, index, timestep, values):
        steps.append(unpack(values["latents"], edit.height // 8, edit.width // 8).clone())
        return values

    repeat = (edit.batch, 1, 1)
    extra = {}
    if negative is not None:
        extra = {
            "negative_prompt_embeds": negative.text.repeat(repeat),
            "negative_pooled_prompt_embeds": negative.pooled.repeat(edit.batch, 1),
            "true_cfg_scale": edit.true_cfg,
        }
    pipeline(
        image=reference,
        prompt_embeds=positive.text.repeat(repeat),
        pooled_prompt_embeds=positive.pooled.repeat(edit.batch, 1),
        latents=pack(noise(edit.seed, edit.batch, edit.height // 8, edit.width // 8)),
        height=edit.height,
        width=edit.width,
        max_area=edit.height * edit.width,
        num_inference_steps=edit.steps,
        guidance_scale=edit.guidance,
        output_type="latent",
        callback_on_step_end=keep,
        **extra,
    )
    return steps, pipeline.scheduler.sigmas


CASES = {
    "plain": {},
    "without a reference": {"reference": False},
    "with a LoRA": {"lora": True},
    "with true CFG": {"true_cfg": 3.0},
    "with a batch": {"batch": 2},
    "with all of it": {"lora": True, "true_cfg": 3.0, "batch": 2},
}


@pytest.mark.parametrize("case", CASES)
def test_every_step_is_that_of_diffusers_pipeline(model, prompts, reference, lora_file, size, case):
    wanted = CASES[case]
    edit = LatentEdit(96, 64, 4, 2.5, 7, batch=wanted.get("batch", 1), true_cfg=wanted.get("true_cfg", 1.0))
    positive, negative = prompts if "true_cfg" in wanted else (prompts[0], None)
    references = [reference] if wanted.get("reference", True) else []
    if wanted.get("lora"):
        attach(linears_of(model), Naming.DIFFUSERS, read_lora(lora_file, size), 0.8)
    expected, sigmas = diffusers_steps(model, edit, positive, references[0] if references else None, negative)
    steps = []
    final = sample(
        model, edit, positive, references, negative=negative, sigmas=sigmas, on_step=lambda s: steps.append(s.latent)
    )
    assert len(steps) == len(expected) == 4
    for ours, theirs in zip(steps, expected, strict=True):
        assert relative(ours, theirs) < 1e-5
    assert torch.equal(final, steps[-1])


@pytest.mark.parametrize("saving", ["modulation", "embeddings", "positions", "dead_rows"])
@pytest.mark.parametrize("case", ["plain", "with all of it"])
def test_what_is_computed_once_or_left_out_changes_no_picture(model, prompts, reference, lora_file, size, saving, case):
    wanted = CASES[case]
    edit = LatentEdit(96, 64, 4, 2.5, 7, batch=wanted.get("batch", 1), true_cfg=wanted.get("true_cfg", 1.0))
    if wanted.get("lora"):
        attach(linears_of(model), Naming.DIFFUSERS, read_lora(lora_file, size), 0.8)
    negative = prompts[1] if "true_cfg" in wanted else None
    saved = sample(model, edit, prompts[0], [reference], negative=negative)
    plain = sample(model, edit, prompts[0], [reference], negative=negative, exact=Exact(**{saving: False}))
    assert relative(saved, plain) < 1e-6


def test_the_schedule_is_that_of_diffusers(model):
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15, base_image_seq_len=256, max_image_seq_len=4096
    )
    for steps, tokens in ((1, 24), (4, 256), (28, 4096), (50, 1234)):
        mu = 0.5 + (tokens - 256) * (1.15 - 0.5) / (4096 - 256)
        scheduler.set_timesteps(sigmas=torch.linspace(1, 1 / steps, steps).tolist(), mu=mu)
        assert torch.allclose(schedule(steps, tokens), scheduler.sigmas, atol=2e-7, rtol=0)


def test_a_seed_makes_the_same_noise_whatever_the_batch():
    alone = [noise(seed, 1, 4, 6) for seed in (5, 6, 7)]
    assert torch.equal(noise(5, 3, 4, 6), torch.cat(alone))
    assert torch.equal(alone[0], torch.randn(1, 16, 4, 6, generator=torch.Generator("cpu").manual_seed(5)))


def test_packing_is_undone_exactly():
    from diffusers import FluxKontextPipeline

    latent = torch.randn(2, 16, 6, 10)
    assert torch.equal(unpack(pack(latent), 6, 10), latent)
    assert torch.equal(pack(latent), FluxKontextPipeline._pack_latents(latent, 2, 16, 6, 10))


def test_references_are_laid_out_without_overlap():
    places = positions(8, 8, [(8, 12), (6, 4), (10, 2)])
    assert len({tuple(place) for place in places[16:].tolist()}) == len(places) - 16
    assert (places[:16, 0] == 0).all() and (places[16:, 0] == 1).all()
    assert places[16:40].tolist() == [[1, r, c] for r in range(4) for c in range(6)]


def test_the_index_method_puts_every_reference_on_its_own_plane_at_the_origin():
    places = positions(4, 4, [(4, 4), (4, 4)], ReferenceMethod.INDEX)
    assert places[4:8].tolist() == [[1, r, c] for r in range(2) for c in range(2)]
    assert places[8:].tolist() == [[2, r, c] for r in range(2) for c in range(2)]


def test_references_of_several_sizes_change_the_picture_each(model, prompts, reference):
    other = torch.randn(1, 16, 4, 6, generator=torch.Generator().manual_seed(9))
    one = sample(model, EDIT, prompts[0], [reference])
    two = sample(model, EDIT, prompts[0], [reference, other])
    index = sample(model, LatentEdit(96, 64, 4, 2.5, 7, method=ReferenceMethod.INDEX), prompts[0], [reference, other])
    assert relative(two, one) > 1e-3 and relative(index, two) > 1e-4


def test_a_picture_of_a_batch_is_the_one_made_alone(model, prompts, reference):
    both = sample(model, LatentEdit(96, 64, 2, seed=7, batch=2), prompts[0], [reference])
    second = sample(model, LatentEdit(96, 64, 2, seed=8), prompts[0], [reference])
    assert relative(both[1:], second) < 1e-5


def test_each_step_reports_where_it_is_and_what_it_foresees(model, prompts, reference):
    steps = []
    final = sample(model, EDIT, prompts[0], [reference], on_step=steps.append)
    assert [step.number for step in steps] == [1, 2, 3, 4] and {step.steps for step in steps} == {4}
    assert steps[-1].sigma == 0 and torch.equal(steps[-1].latent, final)
    assert relative(steps[-1].preview, final) < 1e-6
    assert steps[0].preview.shape == final.shape == (1, 16, 8, 12)


def test_a_stop_takes_effect_between_two_steps(model, prompts, reference):
    seen = []
    with pytest.raises(Stopped, match="step 2 of 4") as caught:
        sample(model, EDIT, prompts[0], [reference], on_step=seen.append, should_stop=lambda: len(seen) == 2)
    assert caught.value.step == len(seen) == 2


def test_an_exception_of_the_callback_comes_through(model, prompts, reference):
    class Interrupted(BaseException):
        pass

    def interrupt(step):
        raise Interrupted

    with pytest.raises(Interrupted):
        sample(model, EDIT, prompts[0], [reference], on_step=interrupt)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"steps": 0}, "at least one step"),
        ({"width": 100}, "width is 100"),
        ({"height": 8}, "height is 8"),
        ({"width": 8192}, "at most 4096"),
        ({"batch": 0}, "at least one picture"),
        ({"seed": -1}, "seed is -1"),
        ({"guidance": float("nan")}, "guidance is nan"),
        ({"true_cfg": float("inf")}, "true CFG is inf"),
    ],
)
def test_an_edit_that_cannot_be_made_is_refused_in_words(wrong, message):
    with pytest.raises(BadRequest, match=message):
        LatentEdit(**{"width": 96, "height": 64, **wrong})


def test_true_cfg_without_a_negative_prompt_is_refused(model, prompts):
    with pytest.raises(BadRequest, match="negative prompt"):
        sample(model, LatentEdit(96, 64, 2, true_cfg=3.0), prompts[0])


@pytest.mark.parametrize("shape", [(1, 16, 7, 8), (1, 4, 8, 8), (16, 8, 8)])
def test_a_reference_that_is_no_latent_is_named(model, prompts, reference, shape):
    with pytest.raises(BadRequest, match="Reference 2"):
        sample(model, EDIT, prompts[0], [reference, torch.zeros(shape)])


def test_a_reference_batch_that_does_not_fit_is_refused(model, prompts, reference):
    with pytest.raises(BadRequest, match="3 pictures for a batch of 2"):
        sample(model, LatentEdit(96, 64, 2, batch=2), prompts[0], [reference.repeat(3, 1, 1, 1)])


@pytest.mark.parametrize("sigmas", [[1.0, 0.5], [1.0, 0.2, 0.5, 0.1, 0.0], [1.0, 0.5, 0.2, 0.1, -0.1]])
def test_a_schedule_that_does_not_fall_is_refused(model, prompts, sigmas):
    with pytest.raises(BadRequest, match="falling noise levels"):
        sample(model, EDIT, prompts[0], sigmas=torch.tensor(sigmas))


def test_nan_in_a_reference_is_found_before_the_first_step(model, prompts, reference):
    broken = reference.clone()
    broken[0, 0, 0, 0] = float("nan")
    with pytest.raises(NonFinite, match="latent of reference 1"):
        sample(model, EDIT, prompts[0], [broken])


def test_nan_during_an_edit_names_the_step_and_the_layer(model, prompts, reference):
    layer = model.single_transformer_blocks[0].attn.to_v
    layer.bias = layer.bias.clone()  # it is the checkpoint's own, which other tests read
    with pytest.raises(NonFinite, match=r"step 3 of 4, first in single_transformer_blocks\.0\.attn\.to_v"):
        sample(
            model,
            EDIT,
            prompts[0],
            [reference],
            on_step=lambda step: layer.bias.fill_(float("inf")) if step.number == 2 else None,
        )


def test_a_device_that_runs_out_says_how_much_was_missing(model, prompts, reference):
    def exhausted(*_):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    model.transformer_blocks[0].ff.register_forward_hook(exhausted)
    with pytest.raises(OutOfMemory, match="Choose a smaller size"):
        sample(model, EDIT, prompts[0], [reference])


@pytest.mark.parametrize("compute", [Compute.FP8, Compute.STORAGE])
def test_compiling_takes_one_graph_for_all_blocks_of_a_kind_and_all_lengths(
    checkpoint, prompts, reference, monkeypatch, compute
):
    graphs = []

    def count(graph, inputs):
        graphs.append(graph)
        return graph.forward

    def compiled(block):
        return torch.compile(block, dynamic=True, fullgraph=True, backend=count)

    monkeypatch.setattr(denoiser, "_compiled", functools.cache(compiled))
    monkeypatch.setattr(denoiser, "require_compiler", lambda _: None)
    model = mount(checkpoint, dtype=torch.float32, compute=compute)
    for width in (96, 160):
        edit = LatentEdit(width, 64, 1)
        eager = sample(model, edit, prompts[0], [reference])
        assert relative(sample(model, edit, prompts[0], [reference], compiled=True), eager) < 1e-6
    assert len(graphs) <= 3 + 1  # double, single, the last single, and a first one before sizes became dynamic
