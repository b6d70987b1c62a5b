"""Which model a file holds, from the names and shapes of its tensors; anything but FLUX.1 Kontext is refused.

FLUX.1 [dev], its finetunes and Kontext have the same tensors in the same shapes: weights alone do not tell them
apart. There the file's own labels decide (metadata, file name, diffusers' model_index.json), and a file with no
label at all is taken with a warning.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import UnknownLayout, WrongModel
from .layers import HEAD, KONTEXT, PATCHED_CHANNELS, Naming, Size
from .purpose import PURPOSE

logger = logging.getLogger(__name__)

Shapes = Mapping[str, tuple[int, ...]]

GET_KONTEXT = (
    "Get FLUX.1 Kontext [dev], for example flux1-dev-kontext_fp8_scaled.safetensors from "
    "Comfy-Org/flux1-kontext-dev_ComfyUI."
)
_PREFIXES = ("", "model.diffusion_model.", "diffusion_model.", "transformer.", "model.")
# What an all-in-one checkpoint holds beside the transformer.
COMPANIONS = ("first_stage_model.", "vae.", "text_encoders.", "cond_stage_model.", "conditioner.", "text_encoder")
# A name that only this kind of file has, and what the file is; the first that matches is reported.
# These share names with FLUX.1, so they are looked for before it:
_KIN: tuple[tuple[str, str], ...] = (
    (r"[._]lora_(A|B|down|up)(\.|$)|[._]lora\.(down|up)\.|\.lora_linear_layer\.", "a LoRA"),
    (r"\.(lokr_w|hada_w|oft_blocks|oft_diag|dora_scale|diff(_b)?$|set_weight$)", "a LyCORIS adapter"),
    (r"double_stream_modulation", "FLUX.2"),
    (r"distilled_guidance_layer\.", "Chroma"),
    (r"controlnet_|input_hint_block", "a ControlNet"),
    (r"individual_token_refiner", "HunyuanVideo"),
    (r"(^|\.)(ip_adapter|ip_adapter_proj_model|image_proj)\.|\.ip_adapter_", "an IP-Adapter"),
    (r"(^|\.)pulid_", "PuLID"),
)
_OTHERS: tuple[tuple[str, str], ...] = (
    (r"redux_(up|down)\.", "FLUX.1 Redux, an image-prompt adapter"),
    (r"encoder\.down\.0\.block|encoder\.down_blocks\.0|decoder\.conv_in", "a VAE"),
    (r"(^|\.)joint_blocks\.0\.|^(transformer\.)?pos_embed\.proj\.weight", "Stable Diffusion 3"),
    (r"transformer_blocks\.0\.img_mod\.1\.", "Qwen-Image"),
    (r"noise_refiner\.0\.", "Lumina 2 or Z-Image"),
    (r"(^|\.)blocks\.0\.cross_attn\.q\.", "Wan"),
    (r"text_model\.encoder\.layers\.0", "a CLIP text encoder"),
    (r"encoder\.block\.0\.layer\.0\.SelfAttention|(^|\.)shared\.weight", "a T5 text encoder"),
    (r"(^|\.)decoder\.block\.|lm_head\.weight|(^|\.)layers\.0\.self_attn\.", "a language model or text encoder"),
)
# Whole checkpoints of other models have the VAE and text encoders beside them, so these come before those.
_WHOLE: tuple[tuple[str, str], ...] = (
    (
        r"(^|\.)conditioner\.embedders\.|label_emb\.0\.0\.weight|add_embedding\.linear_1",
        "Stable Diffusion XL or its kin",
    ),
    (r"(^|\.)cond_stage_model\.|input_blocks\.0\.0\.weight|^(unet\.)?down_blocks\.0\.", "a Stable Diffusion U-Net"),
    (r"model\.diffusion_model\.joint_blocks\.0\.", "Stable Diffusion 3"),
)
_COMFYUI = "Load it with ComfyUI's own Load Diffusion Model, if your ComfyUI and GPU can."
_ITS_MAKER = "Load it with the program that wrote it."
# The ends of tensors' names in packed files, what the packing is, and where such files can be loaded.
_PACKED: tuple[tuple[str, str, str], ...] = (
    (r"\.(qzeros|g_idx)$", "GPTQ's or AWQ's format", _ITS_MAKER),
    (
        r"\.(qweight|smooth_factor(_orig)?|proj_down|wscales|wcscales|wtscale)$",
        "Nunchaku's 4-bit format (SVDQuant)",
        "Load it with the loader of ComfyUI-nunchaku.",
    ),
    (r"\.SCB$|\.weight_format$", "bitsandbytes' INT8 format", "Load it with diffusers and bitsandbytes."),
    (
        r"\.(absmax|quant_map|nested_absmax|nested_quant_map)$|quant_state\.bitsandbytes",
        "bitsandbytes' 4-bit format (NF4 or FP4)",
        "Load it with diffusers and bitsandbytes, or with ComfyUI_bitsandbytes_NF4.",
    ),
    (r"\.weight_scale_2$", "NVFP4", _COMFYUI),
    (r"\.weight_scale_inv$", "block-wise FP8 (DeepSeek's layout)", _ITS_MAKER),
    (r"\.weight\._(data|scale|packed|shift)$", "quanto's format", "Load it with diffusers and optimum-quanto."),
    (r"float8_data$|\.scale_reciprocal$", "FP8 of another maker (float8_data), such as flux-fp8-api", _ITS_MAKER),
    (r"\.weight_(qdata|_data)$|:_data$|tensor_impl", "torchao's own format", "Load it with diffusers and torchao."),
    (r"\.(weight_codebook|weight_s_channel)$", "ComfyUI's 4-bit format with a codebook", _COMFYUI),
    (r"\.(W_q|weight_packed|zero_point|weight_zero_point)$", "a packed integer format", _ITS_MAKER),
    (r"quantizer\._amax$", "NVIDIA ModelOpt's format", _ITS_MAKER),
)
_SHARD = re.compile(r"-0*(\d+)-of-0*(\d+)$")
_BY_INPUT = {384: "FLUX.1 Fill [dev], which fills masks", 128: "FLUX.1 Depth or Canny [dev], a structure control"}
_OTHER_LABEL = re.compile(
    r"flux[\W_]*(?:1|one)?[\W_]*(dev|schnell|fill|krea|depth|canny|redux|lite|srpo)|(schnell|krea|fill)[\W_]*flux",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Identity:
    """What a file is: its names' prefix, whose names they are, the model's size, and whether it says Kontext."""

    prefix: str
    naming: Naming
    size: Size
    labelled: bool


def identify(shapes: Shapes, metadata: Mapping[str, str], path: Path, *, pruned: bool = False) -> Identity:
    """The identity of a FLUX.1 Kontext file.

    shapes: every tensor's shape by its full name. pruned: also take FLUX.1's width with other block counts
    (cut-down models, for tests and measurements). Raises WrongModel or UnknownLayout, naming what the file is.
    """
    prefix, naming = _naming(shapes, path)
    size = _size(shapes, prefix, naming, path)
    if size.hidden == KONTEXT.hidden and size != KONTEXT and not pruned:
        raise WrongModel(
            f"{path.name} is a FLUX model cut to {size.doubles} double and {size.singles} single blocks (Kontext has "
            f"{KONTEXT.doubles} and {KONTEXT.singles}) or with other text inputs. {GET_KONTEXT}"
        )
    return Identity(prefix, naming, size, _labelled(metadata, path, told=f"{prefix}{PURPOSE}" in shapes))


def _naming(shapes: Shapes, path: Path) -> tuple[str, Naming]:
    foreign = _first_match(_KIN, shapes)
    _refuse_packed([name for name in shapes if not name.startswith(COMPANIONS)], path)
    if foreign is None:
        _refuse_shard(shapes, path)
        for prefix in _PREFIXES:
            if f"{prefix}double_blocks.0.img_attn.qkv.weight" in shapes:
                return prefix, Naming.BFL
            if f"{prefix}single_transformer_blocks.0.proj_mlp.weight" in shapes:
                return prefix, Naming.DIFFUSERS
        foreign = _first_match((*_WHOLE, *_OTHERS), shapes)
    if foreign is not None:
        raise WrongModel(f"{path.name} is {foreign}, not FLUX.1 Kontext. {GET_KONTEXT}")
    if any(re.search(r"(^|\.)(double|single|transformer|single_transformer)_blocks\.\d+\.", name) for name in shapes):
        raise UnknownLayout(
            f"{path.name} holds only some of the layers of a model: it is one of several parts, or another model. "
            f"{GET_KONTEXT}"
        )
    sample = ", ".join(sorted(shapes)[:3]) or "no tensors"
    raise WrongModel(f"{path.name} is no model known here (it holds {sample}, ...). {GET_KONTEXT}")


def _refuse_packed(names: list[str], path: Path) -> None:
    for pattern, packing, where in _PACKED:
        if any(re.search(pattern, name) for name in names):
            raise UnknownLayout(
                f"{path.name} is stored in {packing}, which is not read here. {where} Or: {GET_KONTEXT}"
            )


def _refuse_shard(shapes: Shapes, path: Path) -> None:
    part = None if path.is_dir() else _SHARD.search(path.stem)
    if part is None or int(part[2]) < 2 or _first_match((*_WHOLE, *_OTHERS), shapes) is not None:
        return
    raise UnknownLayout(
        f"{path.name} is part {part[1]} of {part[2]} of a model, as diffusers writes large ones. In ComfyUI take one "
        f"that is whole. {GET_KONTEXT} The command line also takes the folder with all {part[2]} parts and an index."
    )


def _first_match(table: tuple[tuple[str, str], ...], shapes: Shapes) -> str | None:
    return next((what for pattern, what in table if any(re.search(pattern, name) for name in shapes)), None)


def _size(shapes: Shapes, prefix: str, naming: Naming, path: Path) -> Size:
    bfl = naming is Naming.BFL
    image, text, pooled, guidance = (
        ("img_in", "txt_in", "vector_in.in_layer", "guidance_in.in_layer")
        if bfl
        else (
            "x_embedder",
            "context_embedder",
            "time_text_embed.text_embedder.linear_1",
            "time_text_embed.guidance_embedder.linear_1",
        )
    )
    hidden, channels = _matrix(shapes, f"{prefix}{image}.weight", path)
    if channels != PATCHED_CHANNELS:
        like = _BY_INPUT.get(channels)
        raise WrongModel(
            f"{path.name} is a FLUX model with {channels} input channels instead of {PATCHED_CHANNELS}"
            + (f", as {like} has" if like else "")
            + f". It is not FLUX.1 Kontext. {GET_KONTEXT}"
        )
    if f"{prefix}{guidance}.weight" not in shapes:
        raise WrongModel(
            f"{path.name} has no guidance input: it is FLUX.1 [schnell] or made from it, not Kontext. {GET_KONTEXT}"
        )
    if hidden % HEAD:
        raise WrongModel(f"{path.name}: a width of {hidden} is no multiple of {HEAD}, so it is no FLUX.1 model.")
    return Size(
        hidden=hidden,
        doubles=_depth(shapes, prefix + ("double_blocks." if bfl else "transformer_blocks.")),
        singles=_depth(shapes, prefix + ("single_blocks." if bfl else "single_transformer_blocks.")),
        context=_matrix(shapes, f"{prefix}{text}.weight", path)[1],
        pooled=_matrix(shapes, f"{prefix}{pooled}.weight", path)[1],
    )


def _matrix(shapes: Shapes, name: str, path: Path) -> tuple[int, int]:
    shape = shapes.get(name)
    if shape is None or len(shape) != 2:
        raise UnknownLayout(
            f"{path.name} looks like FLUX.1, but {name!r} is "
            + ("missing." if shape is None else f"of shape {list(shape)}, not a matrix.")
            + f" The file is incomplete, another model, or stored in a way not known here. {GET_KONTEXT}"
        )
    return shape[0], shape[1]


def _depth(shapes: Shapes, prefix: str) -> int:
    indices = {
        int(match.group(1)) for name in shapes if (match := re.match(re.escape(prefix) + r"(\d+)\.", name)) is not None
    }
    return max(indices, default=-1) + 1


def _labelled(metadata: Mapping[str, str], path: Path, *, told: bool) -> bool:
    """told: whether a tensor says what the model was made for, as this pack's own do when ComfyUI saves them."""
    # Not every entry: Kontext's licence is called "FLUX.1 [dev]" too.
    labels = [metadata[key] for key in ("modelspec.architecture", "modelspec.title", "general.name") if key in metadata]
    labels += [path.stem, *_folder_labels(path)]
    if any("kontext" in label.lower() for label in labels):
        return True
    for label in labels:
        other = _OTHER_LABEL.search(label)
        if other:
            raise WrongModel(
                f"{path.name} calls itself {other.group(0)!r}: FLUX.1 models have the same tensors as Kontext, but "
                f"were not taught to look at a picture, and would ignore yours. {GET_KONTEXT} If this is a Kontext "
                "model under another name, put 'kontext' into its file name."
            )
    if told:
        return True
    logger.warning(
        "%s does not say which FLUX.1 it is. It is taken for Kontext; if edits ignore the picture, it is another.",
        path.name,
    )
    return False


def _folder_labels(path: Path) -> list[str]:
    if not path.is_dir():
        return []
    root = path.parent if path.name == "transformer" else path
    index = root / "model_index.json"
    pipeline = ""
    if index.is_file():
        try:
            pipeline = str(json.loads(index.read_text(encoding="utf-8")).get("_class_name", ""))
        except (ValueError, AttributeError, RecursionError):
            logger.warning("%s cannot be read and is ignored.", index)
    return [pipeline, root.name]
