"""FLUX.1's transformer for training, under the names of Black Forest Labs' files, small enough for a CPU.

The arithmetic is that of the released model (black-forest-labs/flux, model.py and layers.py); a test holds it
against the pack's own. Its state is the file that is exported.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from ..kontext.checkpoint.layers import AXES, HEAD, PATCHED_CHANNELS, TIME_CHANNELS, Size
from .vocabulary import WIDTH

DEMO = Size(hidden=128, doubles=3, singles=8, context=WIDTH, pooled=WIDTH)


class FluxInTraining(nn.Module):
    """Tokens [B, L, 64] of a noisy picture and its reference to the velocity of the picture's own tokens."""

    def __init__(self, size: Size = DEMO) -> None:
        super().__init__()
        h = size.hidden
        self.img_in = nn.Linear(PATCHED_CHANNELS, h)
        self.txt_in = nn.Linear(size.context, h)
        self.time_in = _Embedder(TIME_CHANNELS, h)
        self.guidance_in = _Embedder(TIME_CHANNELS, h)
        self.vector_in = _Embedder(size.pooled, h)
        self.double_blocks = nn.ModuleList([_DoubleBlock(h) for _ in range(size.doubles)])
        self.single_blocks = nn.ModuleList([_SingleBlock(h) for _ in range(size.singles)])
        self.final_layer = _Final(h)

    def forward(
        self,
        noisy: torch.Tensor,
        reference: torch.Tensor,
        time: torch.Tensor,
        guidance: torch.Tensor,
        text: torch.Tensor,
        pooled: torch.Tensor,
        rotary: torch.Tensor,
    ) -> torch.Tensor:
        """time and guidance: [B], 1 being pure noise. rotary: from `rotary_table`, for text, picture and reference."""
        moment = self.time_in(_waves(time)) + self.guidance_in(_waves(guidance)) + self.vector_in(pooled)
        moment = functional.silu(moment)
        image = self.img_in(torch.cat([noisy, reference], 1))
        words = self.txt_in(text)
        for block in self.double_blocks:
            words, image = block(words, image, moment, rotary)
        x = torch.cat([words, image], 1)
        for block in self.single_blocks:
            x = block(x, moment, rotary)
        first = words.shape[1]
        out: torch.Tensor = self.final_layer(x[:, first : first + noisy.shape[1]], moment)
        return out


def rotary_table(places: torch.Tensor, text: int) -> torch.Tensor:
    """Cosine and sine [2, L, HEAD / 2] for `text` words, which lie at zero, and tokens at `places` [L, 3]."""
    places = torch.cat([torch.zeros(text, 3), places]).double()
    angles = [
        places[:, axis : axis + 1] / 10000 ** (torch.arange(0, width, 2, dtype=torch.float64) / width)
        for axis, width in enumerate(AXES)
    ]
    angle = torch.cat(angles, 1)
    return torch.stack([angle.cos(), angle.sin()]).float()


def matrices(model: nn.Module) -> list[tuple[nn.Parameter, tuple[int, ...]]]:
    """The matrices within blocks, with the rows of each matrix that was fused into it."""
    found: list[tuple[nn.Parameter, tuple[int, ...]]] = []
    for name, parameter in model.named_parameters():
        if parameter.ndim != 2 or "blocks." not in name:
            continue
        rows, columns = parameter.shape
        if "qkv" in name:
            found.append((parameter, (columns,) * 3))
        elif "linear1" in name:
            found.append((parameter, (columns, columns, columns, rows - 3 * columns)))
        else:
            found.append((parameter, (rows,)))
    return found


def _waves(value: torch.Tensor) -> torch.Tensor:
    """A number in 0..1 as TIME_CHANNELS cosines and sines of it, a thousand times as large."""
    half = TIME_CHANNELS // 2
    rates = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32, device=value.device) / half)
    angle = 1000 * value.float()[:, None] * rates
    return torch.cat([angle.cos(), angle.sin()], -1)


class _Embedder(nn.Module):
    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.in_layer = nn.Linear(inputs, hidden)
        self.out_layer = nn.Linear(hidden, hidden)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.out_layer(functional.silu(self.in_layer(x)))
        return out


class _Scale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(HEAD))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.rms_norm(x, (HEAD,), self.scale, eps=1e-6)


class _Norms(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query_norm, self.key_norm = _Scale(), _Scale()

    def forward(self, qkv: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        query, key, value = qkv.reshape(*qkv.shape[:2], 3, -1, HEAD).permute(2, 0, 3, 1, 4).unbind(0)
        return self.query_norm(query), self.key_norm(key), value


class _Modulation(nn.Module):
    def __init__(self, hidden: int, parts: int) -> None:
        super().__init__()
        self.parts = parts
        self.lin = nn.Linear(hidden, parts * hidden)
        nn.init.zeros_(self.lin.weight)
        nn.init.zeros_(self.lin.bias)

    def forward(self, moment: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self.lin(moment)[:, None].chunk(self.parts, -1)  # type: ignore[no-any-return]


class _Attention(nn.Module):
    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(hidden, 3 * hidden)
        self.norm = _Norms()
        self.proj = nn.Linear(hidden, hidden)


def _mlp(hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(hidden, 4 * hidden), nn.GELU(approximate="tanh"), nn.Linear(4 * hidden, hidden))


class _DoubleBlock(nn.Module):
    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.img_mod, self.txt_mod = _Modulation(hidden, 6), _Modulation(hidden, 6)
        self.img_attn, self.txt_attn = _Attention(hidden), _Attention(hidden)
        self.img_mlp, self.txt_mlp = _mlp(hidden), _mlp(hidden)

    def forward(
        self, words: torch.Tensor, image: torch.Tensor, moment: torch.Tensor, rotary: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        i_shift, i_scale, i_gate, i_mlp_shift, i_mlp_scale, i_mlp_gate = self.img_mod(moment)
        w_shift, w_scale, w_gate, w_mlp_shift, w_mlp_scale, w_mlp_gate = self.txt_mod(moment)
        of_words = self.txt_attn.norm(self.txt_attn.qkv(_modulate(words, w_shift, w_scale)))
        of_image = self.img_attn.norm(self.img_attn.qkv(_modulate(image, i_shift, i_scale)))
        mixed = _attend(tuple(torch.cat(pair, 2) for pair in zip(of_words, of_image, strict=True)), rotary)
        w_mixed, i_mixed = mixed[:, : words.shape[1]], mixed[:, words.shape[1] :]
        words = words + w_gate * self.txt_attn.proj(w_mixed)
        image = image + i_gate * self.img_attn.proj(i_mixed)
        words = words + w_mlp_gate * self.txt_mlp(_modulate(words, w_mlp_shift, w_mlp_scale))
        image = image + i_mlp_gate * self.img_mlp(_modulate(image, i_mlp_shift, i_mlp_scale))
        return words, image


class _SingleBlock(nn.Module):
    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.modulation = _Modulation(hidden, 3)
        self.linear1 = nn.Linear(hidden, 7 * hidden)
        self.norm = _Norms()
        self.linear2 = nn.Linear(5 * hidden, hidden)

    def forward(self, x: torch.Tensor, moment: torch.Tensor, rotary: torch.Tensor) -> torch.Tensor:
        shift, scale, gate = self.modulation(moment)
        qkv, mlp = self.linear1(_modulate(x, shift, scale)).split([3 * self.hidden, 4 * self.hidden], -1)
        mixed = _attend(self.norm(qkv), rotary)
        changed: torch.Tensor = x + gate * self.linear2(
            torch.cat([mixed, functional.gelu(mlp, approximate="tanh")], -1)
        )
        return changed


class _Final(nn.Module):
    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden, PATCHED_CHANNELS)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(hidden, 2 * hidden))
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: torch.Tensor, moment: torch.Tensor) -> torch.Tensor:
        shift, scale = self.adaLN_modulation[1](moment)[:, None].chunk(2, -1)
        out: torch.Tensor = self.linear(_modulate(x, shift, scale))
        return out


def _modulate(x: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return torch.addcmul(shift, functional.layer_norm(x, x.shape[-1:], eps=1e-6), 1 + scale)


def _attend(heads: tuple[torch.Tensor, ...], rotary: torch.Tensor) -> torch.Tensor:
    """Attention of query, key and value [B, heads, L, HEAD], with rotary embedding, as [B, L, heads * HEAD]."""
    query, key, value = heads
    mixed: torch.Tensor = functional.scaled_dot_product_attention(_turned(query, rotary), _turned(key, rotary), value)
    return mixed.transpose(1, 2).flatten(2)


def _turned(x: torch.Tensor, rotary: torch.Tensor) -> torch.Tensor:
    cosine, sine = rotary.unbind(0)
    real, imaginary = x.reshape(*x.shape[:-1], -1, 2).unbind(-1)
    return torch.stack([real * cosine - imaginary * sine, imaginary * cosine + real * sine], -1).flatten(-2)
