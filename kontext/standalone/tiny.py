"""A FLUX.1 Kontext model small enough for a test: random weights in the real layout, and noise for pictures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file

from ..checkpoint.layers import HEAD, LATENT_CHANNELS, Naming, Role, Size, layers, norms, roles_by_name
from ..fp8.formats import E4M3
from ..fp8.quantising import MAX_E4M3
from . import optional

TINY = Size(hidden=128, doubles=2, singles=2, context=64, pooled=32)


def random_weights(size: Size = TINY, seed: int = 0) -> dict[str, torch.Tensor]:
    """Float32 tensors by BFL names, scaled so that activations neither vanish nor grow."""
    return dict(_one_by_one(size, seed))


def _one_by_one(size: Size, seed: int) -> Iterator[tuple[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    for layer in layers(size):
        yield f"{layer.bfl}.weight", torch.randn(layer.rows, layer.inputs, generator=generator) / layer.inputs**0.5
        yield f"{layer.bfl}.bias", torch.randn(layer.rows, generator=generator) * 0.02
    for norm in norms(size):
        yield f"{norm.bfl}.scale", 1 + 0.1 * torch.randn(HEAD, generator=generator)


def write_scaled(path: Path, size: Size = TINY, seed: int = 0) -> None:
    """Writes a random model of any size in the released file's layout: ComfyUI's older one for scaled FP8."""
    quantised = {f"{name}.weight" for name, role in roles_by_name(size, Naming.BFL).items() if role is not Role.OUTER}
    scaled = {"scaled_fp8": torch.zeros(0, dtype=E4M3)}
    for name, tensor in _one_by_one(size, seed):
        if name in quantised:
            scale = tensor.abs().max() / MAX_E4M3
            scaled[name] = (tensor / scale).to(E4M3)
            scaled[f"{name.removesuffix('.weight')}.scale_weight"] = scale
        else:
            scaled[name] = tensor.to(torch.bfloat16)
    save_file(scaled, path)


def write_tiny(folder: Path, seed: int = 0) -> Path:
    """Writes a whole tiny model set: transformer, text encoders and VAE, random throughout.

    Gives the transformer's file, in ComfyUI's older scaled FP8 layout. The text encoders' folders and `vae` lie
    beside it. Raises MissingPackage without diffusers and transformers.
    """
    torch.manual_seed(seed)
    path = folder / "tiny_kontext.safetensors"
    write_scaled(path, seed=seed)
    _write_text_encoders(folder)
    diffusers = optional.load("diffusers")
    vae = diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(32, 32, 32, 32),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    vae.save_pretrained(folder / "vae")
    return path


def _write_text_encoders(folder: Path) -> None:
    transformers, tokenizers = optional.load("transformers"), optional.load("tokenizers")
    specials = ["<pad>", "</s>", "<unk>"]
    letters = [chr(code) for code in range(32, 127)]
    vocabulary = {token: index for index, token in enumerate(specials + letters)}
    core = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex("."), "isolated")
    core.post_processor = tokenizers.processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    for name in ("tokenizer", "tokenizer_2"):
        tokenizer.save_pretrained(folder / name)
    clip = transformers.CLIPTextConfig(
        hidden_size=TINY.pooled,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        vocab_size=len(vocabulary),
        eos_token_id=1,
        bos_token_id=0,
        pad_token_id=0,
    )
    transformers.CLIPTextModel(clip).save_pretrained(folder / "text_encoder")
    t5 = transformers.T5Config(
        d_model=TINY.context, d_kv=16, d_ff=64, num_layers=1, num_heads=2, vocab_size=len(vocabulary)
    )
    transformers.T5EncoderModel(t5).save_pretrained(folder / "text_encoder_2")
