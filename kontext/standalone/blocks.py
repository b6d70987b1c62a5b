"""FLUX.1's two kinds of block, computed on diffusers' modules from modulation that is already known.

The arithmetic is that of diffusers' blocks (models/transformers/transformer_flux.py). What differs is that
shifts, scales and gates come in ready, that layers sharing an input share its quantisation, and that the last
block computes only the rows somebody reads.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from ..checkpoint.layers import HEAD
from ..fp8.compute import project
from .before_ampere import lacks_bfloat16

_EPSILON = 1e-6
# Where torch multiplies complex numbers in one pass.
_COMPLEX = {"cpu", "cuda"}


def modulate(x: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Layer norm of x [B, L, H], then times `scale` (which has its 1 already) plus `shift`, both [B or 1, 1, H]."""
    return torch.addcmul(shift, functional.layer_norm(x, x.shape[-1:], eps=_EPSILON), scale)


def rotate(x: torch.Tensor, rotary: torch.Tensor) -> torch.Tensor:
    """Rotary embedding of x [B, L, heads, HEAD]; rotary is cosine and sine [L, 1, HEAD/2, 2], float32."""
    pairs = x.float().view(*x.shape[:-1], -1, 2)
    if x.device.type in _COMPLEX and not torch.compiler.is_compiling():
        # The same sums and products in one pass instead of seven.
        turned = torch.view_as_real(torch.view_as_complex(pairs) * torch.view_as_complex(rotary))
    else:
        (real, imaginary), (cosine, sine) = pairs.unbind(-1), rotary.unbind(-1)
        turned = torch.stack([real * cosine - imaginary * sine, imaginary * cosine + real * sine], dim=-1)
    return turned.flatten(-2).to(x.dtype)


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Attention of [B, L, heads, HEAD] queries over as many or more keys; gives [B, L, heads * HEAD]."""
    dtype = query.dtype
    if dtype == torch.bfloat16 and lacks_bfloat16(query.device):
        # What is normed, and values of what was: they are far from where half floats end.
        query, key, value = query.half(), key.half(), value.half()
    out = functional.scaled_dot_product_attention(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2))
    return out.transpose(1, 2).flatten(2).to(dtype)


def double_block(
    block: Any,
    text: torch.Tensor,
    image: torch.Tensor,
    text_modulation: torch.Tensor,
    image_modulation: torch.Tensor,
    rotary: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Text [B, T, H] and image [B, L, H] after a double block; modulation is [6, B or 1, 1, H] for each."""
    attn = block.attn
    t_shift, t_scale, t_gate, t_mlp_shift, t_mlp_scale, t_mlp_gate = text_modulation
    i_shift, i_scale, i_gate, i_mlp_shift, i_mlp_scale, i_mlp_gate = image_modulation
    t_query, t_key, t_value = map(
        _heads, project(modulate(text, t_shift, t_scale), attn.add_q_proj, attn.add_k_proj, attn.add_v_proj)
    )
    i_query, i_key, i_value = map(_heads, project(modulate(image, i_shift, i_scale), attn.to_q, attn.to_k, attn.to_v))
    mixed = attend(
        rotate(torch.cat([attn.norm_added_q(t_query), attn.norm_q(i_query)], dim=1), rotary),
        rotate(torch.cat([attn.norm_added_k(t_key), attn.norm_k(i_key)], dim=1), rotary),
        torch.cat([t_value, i_value], dim=1),
    )
    t_mixed, i_mixed = mixed[:, : text.shape[1]], mixed[:, text.shape[1] :]
    text = torch.addcmul(text, t_gate, attn.to_add_out(t_mixed))
    image = torch.addcmul(image, i_gate, attn.to_out[0](i_mixed))
    text = torch.addcmul(text, t_mlp_gate, block.ff_context(modulate(text, t_mlp_shift, t_mlp_scale)))
    image = torch.addcmul(image, i_mlp_gate, block.ff(modulate(image, i_mlp_shift, i_mlp_scale)))
    return text, image


def single_block(
    block: Any, x: torch.Tensor, modulation: torch.Tensor, rotary: torch.Tensor, read: tuple[int, int] | None = None
) -> torch.Tensor:
    """Text and image together [B, L, H] after a single block; modulation is [3, B or 1, 1, H].

    read: the first row that is read afterwards and the one after the last, if not all are. The others are still
    attended to, and nothing more. Two numbers and no slice: a compiler would make a new graph for every slice.
    """
    attn = block.attn
    shift, scale, gate = modulation
    normed = modulate(x, shift, scale)
    if read is None:
        query, key, value, mlp = project(normed, attn.to_q, attn.to_k, attn.to_v, block.proj_mlp)
        query_rotary = rotary
    else:
        key, value = project(normed, attn.to_k, attn.to_v)
        first, end = read
        query, mlp = project(normed[:, first:end], attn.to_q, block.proj_mlp)
        query_rotary = rotary[first:end]
        x = x[:, first:end]
    mixed = attend(
        rotate(attn.norm_q(_heads(query)), query_rotary),
        rotate(attn.norm_k(_heads(key)), rotary),
        _heads(value),
    )
    out = block.proj_out(torch.cat([mixed, functional.gelu(mlp, approximate="tanh")], dim=2))
    return torch.addcmul(x, gate, out)


def _heads(x: torch.Tensor) -> torch.Tensor:
    return x.view(*x.shape[:-1], -1, HEAD)
