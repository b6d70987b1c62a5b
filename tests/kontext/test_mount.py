"""A mounted checkpoint gives what the same numbers give in diffusers' own model."""

import weakref

import pytest
import torch
from kontext_bridge.kontext.checkpoint.layers import Naming, Role, Size, layers, norms
from kontext_bridge.kontext.checkpoint.reading import read_checkpoint
from kontext_bridge.kontext.errors import BadRequest, MissingPackage, NonFinite, OutOfMemory, UnsupportedDevice
from kontext_bridge.kontext.fp8.compute import Compute
from kontext_bridge.kontext.fp8.formats import E4M3, FORMATS
from kontext_bridge.kontext.latents import noise, pack, positions
from kontext_bridge.kontext.schedule import schedule
from kontext_bridge.kontext.standalone import memory
from kontext_bridge.kontext.standalone import mount as mounting
from kontext_bridge.kontext.standalone.denoiser import Conditioning, Denoiser
from kontext_bridge.kontext.standalone.lora import linears_of
from kontext_bridge.kontext.standalone.mount import mount
from kontext_bridge.kontext.standalone.workshop import mounted
from safetensors import safe_open
from safetensors.torch import save_file


def relative(a, b):
    return ((a - b).norm() / b.norm()).item()


def dequantised(path):
    """The numbers a file stands for, float32, worked out from its tensors alone."""
    files = [path] if path.is_file() else sorted((path / "transformer").glob("*.safetensors"))
    tensors = {}
    for file in files:
        with safe_open(file, "pt") as opened:
            tensors.update({k: opened.get_tensor(k) for k in opened.keys()})  # noqa: SIM118
    tensors = {k.removeprefix("model.diffusion_model."): v for k, v in tensors.items() if not k.startswith("vae.")}
    out = {}
    for name, tensor in tensors.items():
        if name.endswith((".weight", ".bias", "_norm.scale")):
            base = name.removesuffix(".weight")
            scale = tensors.get(f"{base}.weight_scale", tensors.get(f"{base}.scale_weight", torch.tensor(1.0)))
            value = tensor.float()
            out[name] = value * (scale.reshape(-1, 1) if scale.numel() > 1 else scale) if "weight" in name else value
    return out


def plain_model(tensors, size):
    from diffusers import FluxTransformer2DModel  # seconds, which every process that collects the tests would take

    model = FluxTransformer2DModel(
        num_layers=size.doubles,
        num_single_layers=size.singles,
        num_attention_heads=size.heads,
        joint_attention_dim=size.context,
        pooled_projection_dim=size.pooled,
        guidance_embeds=True,
    )
    model.load_state_dict(tensors)
    return model.eval()


@pytest.fixture(scope="module")
def inputs(size):
    g = torch.Generator().manual_seed(5)
    return {
        "conditioning": Conditioning(
            torch.randn(1, 9, size.context, generator=g), torch.randn(1, size.pooled, generator=g)
        ),
        "reference": torch.randn(1, 16, 6, 8, generator=g),
        "tokens": pack(noise(1, 1, 8, 6)),
    }


def ours(model, inputs, **options):
    denoiser = Denoiser(model, inputs["conditioning"], [inputs["reference"]], 8, 6, schedule(4, 12), 2.5, **options)
    with torch.inference_mode():
        return denoiser(inputs["tokens"], 1)


@torch.inference_mode()
def diffusers_own(model, inputs):
    conditioning, tokens = inputs["conditioning"], inputs["tokens"]
    out = model(
        hidden_states=torch.cat([tokens, pack(inputs["reference"])], dim=1),
        encoder_hidden_states=conditioning.text,
        pooled_projections=conditioning.pooled,
        timestep=schedule(4, 12)[1:2],
        img_ids=positions(8, 6, [(6, 8)]),
        txt_ids=torch.zeros(conditioning.text.shape[1], 3),
        guidance=torch.tensor([2.5]),
        return_dict=False,
    )[0]
    return out[:, : tokens.shape[1]]


def test_every_fp8_layout_gives_what_its_numbers_give(write, fp8_layout, size, inputs, to_diffusers):
    path = write(fp8_layout)
    checkpoint = read_checkpoint(path)
    tensors = dequantised(path)
    reference = plain_model(tensors if checkpoint.naming is Naming.DIFFUSERS else to_diffusers(tensors, size), size)
    model = mount(checkpoint, dtype=torch.float32)
    expected = diffusers_own(reference, inputs)
    assert relative(ours(model, inputs), expected) < 1e-6
    assert relative(diffusers_own(model, inputs), expected) < 1e-6


def test_every_wide_layout_gives_what_its_numbers_give(write, wide_layout, size, inputs, to_diffusers):
    path = write(wide_layout)
    checkpoint = read_checkpoint(path)
    tensors = dequantised(path)
    reference = plain_model(tensors if checkpoint.naming is Naming.DIFFUSERS else to_diffusers(tensors, size), size)
    expected = diffusers_own(reference, inputs)
    assert relative(ours(mount(checkpoint, dtype=torch.float32, quantise=False), inputs), expected) < 1e-6
    quantised = ours(mount(checkpoint, dtype=torch.float32), inputs)
    assert 1e-3 < relative(quantised, expected) < 6e-2


def test_mounting_keeps_the_files_bytes(write, fp8_layout):
    checkpoint = read_checkpoint(write(fp8_layout))
    model = mount(checkpoint)
    stored = sorted(
        bytes(w.weight.view(torch.uint8).flatten().tolist()) for w in checkpoint.linears.values() if w.scale is not None
    )
    total = sum(len(data) for data in stored)
    mounted = [linear for linear in linears_of(model).values() if linear.weight.dtype in FORMATS]
    assert sum(linear.weight.nbytes for linear in mounted) == total
    if checkpoint.naming is Naming.BFL:
        source = checkpoint.linears["single_blocks.1.linear1"].weight
        block = model.single_transformer_blocks[1]
        slices = [block.attn.to_q, block.attn.to_k, block.attn.to_v, block.proj_mlp]
        joined = torch.cat([linear.weight.view(torch.uint8) for linear in slices])
        assert torch.equal(joined, source.view(torch.uint8))
        assert slices[0].weight.untyped_storage().data_ptr() == source.untyped_storage().data_ptr()


def test_a_wide_file_is_quantised_by_row_in_its_blocks_only(write):
    model = mount(read_checkpoint(write("bfloat16")))
    block = model.single_transformer_blocks[0]
    assert block.attn.to_q.weight.dtype == E4M3
    assert block.attn.to_q.scale.shape == (128,)
    assert block.norm.linear.scale is None and model.x_embedder.scale is None


@pytest.mark.parametrize("compute", [Compute.FP8, Compute.STORAGE, Compute.REFERENCE])
def test_bfloat16_stays_near_the_float32_result_in_every_mode(write, inputs, compute):
    checkpoint = read_checkpoint(write("legacy"))
    exact = ours(mount(checkpoint, dtype=torch.float32), inputs)
    out = ours(mount(checkpoint, compute=compute), inputs)
    assert relative(out, exact) < (0.1 if compute is Compute.FP8 else 0.03)


def test_layers_marked_full_precision_are_never_multiplied_in_fp8(write):
    x = torch.randn(4, 128)
    plain = mount(read_checkpoint(write("legacy")), compute=Compute.FP8)
    marked = mount(read_checkpoint(write("legacy_full_precision")), compute=Compute.FP8)
    assert plain.transformer_blocks[0].attn.to_q.multiplies_fp8(x)
    assert not plain.transformer_blocks[0].norm1.linear.multiplies_fp8(x)
    assert not any(linear.multiplies_fp8(x) for linear in linears_of(marked).values() if linear.in_features == 128)


def test_modulation_left_behind_needs_no_memory_on_the_device(write, monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda device: 0)
    checkpoint = read_checkpoint(write("legacy"))
    needed = []
    for place in (None, "cpu"):
        with pytest.raises(OutOfMemory) as caught:
            mount(checkpoint, device="meta", modulation_device=place)
        needed.append(caught.value.needed)
    modulation = sum(w.weight.nbytes for w in checkpoint.linears.values() if w.role is Role.MODULATION)
    assert needed[0] - needed[1] == modulation > 0


def test_a_gpu_that_fills_up_while_a_model_is_brought_gets_it_without_modulation_and_keeps_nothing(write, monkeypatch):
    real, brought = mounting._placed, []

    def placed(checkpoint, name, weights, device, quantise):
        if device.type == "cpu":
            return real(checkpoint, name, weights, device, quantise)
        if weights.role is Role.MODULATION:
            raise torch.OutOfMemoryError("CUDA out of memory")
        found = real(checkpoint, name, weights, device, quantise)
        brought.append(weakref.ref(found.weight))
        return found

    def empty(size):
        assert all(weight() is None for weight in brought), "the first model's weights are still there"
        return real_empty(size)

    real_empty = mounting._empty
    monkeypatch.setattr(mounting, "_placed", placed)
    monkeypatch.setattr(mounting, "_empty", empty)
    # Where there are no numbers, none can be looked at.
    monkeypatch.setattr(mounting, "require_finite", lambda tensor, _: tensor)
    model = mounted(
        read_checkpoint(write("legacy")), dtype=torch.bfloat16, device=torch.device("meta"), compute=Compute.AUTO
    )
    places = {linear.weight.device.type for name, linear in linears_of(model).items() if ".norm1" in name}
    assert places == {"cpu"} and model.transformer_blocks[0].attn.to_q.weight.device.type == "meta"


def test_fp8_weights_are_refused_before_a_device_without_8_bit_floats_is_given_any(write):
    # No computer that runs this has such a device: it refuses everything, and FP8 among it.
    for kind in "legacy", "per_row":
        with pytest.raises(UnsupportedDevice, match="has no 8-bit floats"):
            mount(read_checkpoint(write(kind)), device="mps")


@pytest.mark.parametrize(
    "name", ["double_blocks.1.txt_mlp.2.weight", "img_in.bias", "single_blocks.0.norm.key_norm.scale"]
)
def test_a_damaged_tensor_is_named(write, name):
    def damage(tensors):
        tensors[name].view(torch.uint8).flatten()[-2:] = torch.tensor([0xFF, 0xFF], dtype=torch.uint8)

    with pytest.raises(NonFinite, match=r"txt_mlp\.2|img_in|norm_k"):
        mount(read_checkpoint(write(change=damage)))


def test_half_precision_is_refused_where_it_would_overflow(write):
    with pytest.raises(BadRequest, match="bfloat16 or float32"):
        mount(read_checkpoint(write()), dtype=torch.float16)


def test_an_absent_diffusers_is_named_with_the_command(write, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "diffusers", None)
    with pytest.raises(MissingPackage, match="python -m pip install 'diffusers"):
        mount(read_checkpoint(write()))


def test_too_little_memory_says_how_much_is_missing(write, monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda device: 1_000_000)
    with pytest.raises(OutOfMemory, match="GB are missing") as caught:
        mount(read_checkpoint(write()), device="meta")
    assert caught.value.needed > caught.value.free == 1_000_000


def write_real_width(path, size):
    """Every row is a window onto one pool of Gaussian numbers: drawing them all would take most of the test."""
    g = torch.Generator().manual_seed(0)
    pool = (torch.randn(1 << 20, generator=g) * 80).clamp_(-448, 448).to(E4M3).view(torch.uint8)
    tensors = {"scaled_fp8": torch.zeros(0, dtype=E4M3)}
    for layer in layers(size):
        if layer.role is Role.OUTER:
            weight = (torch.randn(layer.rows, layer.inputs, generator=g) / layer.inputs**0.5).to(torch.bfloat16)
        else:
            starts = torch.randint(len(pool) - layer.inputs, (layer.rows,), generator=g)
            weight = pool.unfold(0, layer.inputs, 1)[starts].view(E4M3)
            tensors[f"{layer.bfl}.scale_weight"] = torch.tensor(1 / 80 / layer.inputs**0.5)
        tensors[f"{layer.bfl}.weight"] = weight
        tensors[f"{layer.bfl}.bias"] = torch.randn(layer.rows, generator=g).mul_(0.02).to(torch.bfloat16)
    for norm in norms(size):
        tensors[f"{norm.bfl}.scale"] = torch.ones(128, dtype=torch.bfloat16)
    save_file(tensors, path)
    return path


def test_real_widths_agree_with_diffusers_own_conversion(tmp_path):
    """Hidden 3072, one block of each kind, in the layout of the released scaled file."""
    from diffusers import FluxTransformer2DModel
    from diffusers.loaders.single_file_utils import convert_flux_transformer_checkpoint_to_diffusers

    size = Size(hidden=3072, doubles=1, singles=1, context=4096, pooled=768)
    path = write_real_width(tmp_path / "kontext_wide.safetensors", size)
    checkpoint = read_checkpoint(path, pruned=True)
    model = mount(checkpoint, dtype=torch.float32)
    g = torch.Generator().manual_seed(5)
    inputs = {
        "conditioning": Conditioning(torch.randn(1, 5, 4096, generator=g), torch.randn(1, 768, generator=g)),
        "reference": torch.randn(1, 16, 6, 8, generator=g),
        "tokens": pack(noise(1, 1, 8, 6)),
    }
    out = ours(model, inputs)
    tensors = convert_flux_transformer_checkpoint_to_diffusers(dequantised(path))
    with torch.device("meta"):
        reference = FluxTransformer2DModel(num_layers=1, num_single_layers=1, guidance_embeds=True)
    reference.load_state_dict(tensors, assign=True)
    assert relative(out, diffusers_own(reference.eval(), inputs)) < 1e-6
    stored = checkpoint.linears["double_blocks.0.img_attn.qkv"].weight.view(torch.uint8)
    mounted = model.transformer_blocks[0].attn.to_k.weight.view(torch.uint8)
    assert torch.equal(mounted, stored[3072:6144])
