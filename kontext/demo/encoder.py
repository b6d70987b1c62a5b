"""The demo's text encoder: what T5 and CLIP are to FLUX, in a table of words and two small layers of attention."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from .sentences import PAD

_HEADS = 4
_BLOCKS = 2


class WordEncoder(nn.Module):
    """Word numbers [B, places] as what FLUX takes: states [B, places, width] and their summary [B, width], float32.

    rows: of the table of words. operations: whose Embedding, Linear and LayerNorm it is made of; ComfyUI has its own,
    which bring their weights to where they are needed. dtype, device: of the weights; computed is in float32 where
    the operations bring the weights to it.
    """

    def __init__(
        self,
        rows: int,
        places: int,
        width: int,
        operations: Any = nn,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        kind = {"dtype": dtype, "device": device}
        self.words = operations.Embedding(rows, width, **kind)
        self.places = nn.Parameter(torch.randn(places, width, **kind) * 0.5)  # type: ignore[arg-type]
        self.blocks = nn.ModuleList([_Block(width, operations, kind) for _ in range(_BLOCKS)])
        self.norm = operations.LayerNorm(width, **kind)
        self.summary = operations.Linear(width, width, **kind)

    def forward(self, numbers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        said = numbers != PAD
        said[:, 0] = True
        x = self.words(numbers).float()
        x = x + self.places.to(x)
        for block in self.blocks:
            x = block(x, said)
        x = self.norm(x)
        weight = said.to(x.dtype)[..., None]
        return x, self.summary((x * weight).sum(1) / weight.sum(1))


class _Block(nn.Module):
    def __init__(self, width: int, operations: Any, kind: dict[str, Any]) -> None:
        super().__init__()
        self.attention_norm = operations.LayerNorm(width, **kind)
        self.qkv = operations.Linear(width, 3 * width, **kind)
        self.out = operations.Linear(width, width, **kind)
        self.mlp_norm = operations.LayerNorm(width, **kind)
        self.wide = operations.Linear(width, 2 * width, **kind)
        self.narrow = operations.Linear(2 * width, width, **kind)

    def forward(self, x: torch.Tensor, said: torch.Tensor) -> torch.Tensor:
        heads: torch.Tensor = self.qkv(self.attention_norm(x))
        query, key, value = heads.view(*x.shape[:2], 3, _HEADS, -1).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=said[:, None, None])
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        out: torch.Tensor = self.narrow(functional.gelu(self.wide(self.mlp_norm(x)), approximate="tanh"))
        return x + out
