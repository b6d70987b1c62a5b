"""The VAE is the same from every kind of file, and no other VAE is taken for it."""

import pytest
import torch
from kontext_bridge.kontext.errors import DamagedFile, WrongModel
from kontext_bridge.kontext.standalone import before_ampere
from kontext_bridge.kontext.standalone.vae import Autoencoder
from safetensors.torch import save_file

CPU = torch.device("cpu")


def tiny(channels=16):
    import diffusers  # seconds, which every process that collects the tests would take

    torch.manual_seed(0)
    return diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(32, 64, 64),
        layers_per_block=2,
        latent_channels=channels,
        use_quant_conv=False,
        use_post_quant_conv=False,
    ).eval()


def bfl_name(name):
    """A diffusers VAE tensor's name in BFL's files, written down from the two models' sources."""
    parts = name.split(".")
    for index, part in enumerate(parts):
        if part == "up_blocks":
            parts[index + 1] = str(2 - int(parts[index + 1]))
    name = ".".join(parts)
    for old, new in (
        ("mid_block.attentions.0.group_norm", "mid.attn_1.norm"),
        ("mid_block.attentions.0.to_out.0", "mid.attn_1.proj_out"),
        ("mid_block.attentions.0.to_", "mid.attn_1."),
        ("mid_block.resnets.0", "mid.block_1"),
        ("mid_block.resnets.1", "mid.block_2"),
        ("down_blocks", "down"),
        ("up_blocks", "up"),
        ("downsamplers.0", "downsample"),
        ("upsamplers.0", "upsample"),
        ("resnets", "block"),
        ("conv_shortcut", "nin_shortcut"),
        ("conv_norm_out", "norm_out"),
    ):
        name = name.replace(old, new)
    return name


def as_bfl(model):
    tensors = {bfl_name(name): tensor for name, tensor in model.state_dict().items()}
    linear = {k for k, v in tensors.items() if "mid.attn_1" in k and k.endswith("weight") and v.ndim == 2}
    return {k: (v[:, :, None, None] if k in linear else v).contiguous() for k, v in tensors.items()}


@pytest.fixture
def image():
    return torch.rand(1, 32, 48, 3, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", ["folder", "pipeline folder", "diffusers names", "bfl names", "inside a checkpoint"])
def test_every_kind_of_file_is_the_same_vae(tmp_path, image, kind):
    model = tiny()
    path = tmp_path / "ae.safetensors"
    if "folder" in kind:
        path = tmp_path / "whole"
        model.save_pretrained(path / "vae" if kind.startswith("pipeline") else path)
    elif kind == "diffusers names":
        save_file(model.state_dict(), path)
    else:
        prefix = "first_stage_model." if kind.startswith("inside") else ""
        save_file({prefix + name: tensor for name, tensor in as_bfl(model).items()}, path)
    vae = Autoencoder(path, CPU, torch.float32)
    with torch.inference_mode():
        expected = (model.encode(image.movedim(-1, 1) * 2 - 1).latent_dist.mode() - 0.1159) * 0.3611
        latent = vae.encode(image)
        assert torch.allclose(latent, expected, atol=1e-5)
        decoded = model.decode(latent / 0.3611 + 0.1159).sample
    assert torch.allclose(vae.decode(latent), (decoded / 2 + 0.5).clamp(0, 1).movedim(1, -1), atol=1e-5)


def test_the_vae_of_another_model_is_refused(tmp_path):
    save_file(tiny(channels=4).state_dict(), tmp_path / "sdxl_vae.safetensors")
    with pytest.raises(WrongModel, match="4 channels"):
        Autoencoder(tmp_path / "sdxl_vae.safetensors", CPU, torch.float32)


def test_a_file_without_a_decoder_is_no_vae(tmp_path):
    save_file({"encoder.x": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(WrongModel, match="no decoder"):
        Autoencoder(tmp_path / "x.safetensors", CPU, torch.float32)


@pytest.mark.parametrize("gone", ["encoder.down.1.block.0.conv2.weight", "decoder.norm_out.bias"])
def test_an_incomplete_vae_is_refused(tmp_path, gone):
    tensors = as_bfl(tiny())
    del tensors[gone]
    save_file(tensors, tmp_path / "ae.safetensors")
    with pytest.raises(DamagedFile, match="no whole VAE"):
        Autoencoder(tmp_path / "ae.safetensors", CPU, torch.float32)


def test_a_gpu_without_bfloat16_has_no_vae_that_unrolls_its_convolutions_in_it(tmp_path, image, monkeypatch):
    tiny().save_pretrained(tmp_path)
    latents = {dtype: Autoencoder(tmp_path, CPU, dtype).encode(image) for dtype in (torch.float32, torch.bfloat16)}
    monkeypatch.setitem(before_ampere._LACKS, CPU, True)
    older = Autoencoder(tmp_path, CPU, torch.bfloat16).encode(image)
    assert torch.equal(older, latents[torch.float32]) and not torch.equal(older, latents[torch.bfloat16])
