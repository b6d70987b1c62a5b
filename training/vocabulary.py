"""Sentences as numbers, and the tiny text encoder: what T5 and CLIP are to FLUX, in a table of words and two layers.

Articles and marks are left out, so that 16 places hold nearly all sentences taught. A word that is not in the list
is one and the same unknown word. New words are put at the end: a word's number is its row in the table.
"""

from __future__ import annotations

import re

import torch
from torch import nn
from torch.nn import functional

PLACES = 16
WIDTH = 128
ROWS = 320
PAD, UNKNOWN = 0, 1
_HEADS = 4
_ARTICLES = {"the", "a", "an"}

_TAUGHT = """
<pad> <unknown> add air also and are as at autumn away balloon be birds black blue boat bright cabin change cloud
colour cottage cover day daytime delete disappear draw dusk else erase evening everything fall fir firs first get
give golden gone green have hot house in insert into is it jetty keep leave leaves let make midnight moon night
nighttime no noon nothing of on orange out paint picture pier place please purple put recolour red remove rest rid
roof sailboat sailing sails scene season set sheep should show snow snowy some summer sun sunset take then there
they time to trees turn unchanged well white winter with without yellow
"""
_NOT_YET = """
second another two bigger larger smaller big small grow shrink move left right middle side up down higher lower swap
exchange colours from reference other third its shape water light weather sky stormy storm clear cloudy rain rainy
grey brown pink dark flowers door windows window flag path hills mountains lake grass bird tree sail clouds between
both same like copy bring sunny morning afternoon spring cold warm hut wall walls hull dock animal lamb balloons
boats houses behind front next color recolor want i you can could would does not do that this one only just now but
still stay alone untouched colourful composition shift more their round way
lights lanterns
"""
WORDS = (*_TAUGHT.split(), *_NOT_YET.split())
_NUMBERS = {word: number for number, word in enumerate(WORDS)}


def numbers(sentence: str) -> list[int]:
    """A sentence as PLACES word numbers; what is longer is cut."""
    words = [word for word in re.findall(r"[a-z]+", sentence.lower()) if word not in _ARTICLES]
    found = [_NUMBERS.get(word, UNKNOWN) for word in words[:PLACES]]
    return found + [PAD] * (PLACES - len(found))


class WordEncoder(nn.Module):
    """Word numbers [B, PLACES] as what FLUX takes: states [B, PLACES, WIDTH] and their summary [B, WIDTH]."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(ROWS, WIDTH)
        self.places = nn.Parameter(torch.randn(PLACES, WIDTH) * 0.5)
        self.blocks = nn.ModuleList([_Block(), _Block()])
        self.norm = nn.LayerNorm(WIDTH)
        self.summary = nn.Linear(WIDTH, WIDTH)

    def forward(self, numbers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        said = numbers != PAD
        said[:, 0] = True
        x = self.words(numbers) + self.places
        for block in self.blocks:
            x = block(x, said)
        x = self.norm(x)
        weight = said.to(x.dtype)[..., None]
        return x, self.summary((x * weight).sum(1) / weight.sum(1))


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.mlp_norm = nn.LayerNorm(WIDTH)
        self.wide = nn.Linear(WIDTH, 2 * WIDTH)
        self.narrow = nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x: torch.Tensor, said: torch.Tensor) -> torch.Tensor:
        heads: torch.Tensor = self.qkv(self.attention_norm(x))
        query, key, value = heads.view(*x.shape[:2], 3, _HEADS, -1).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=said[:, None, None])
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        out: torch.Tensor = self.narrow(functional.gelu(self.wide(self.mlp_norm(x)), approximate="tanh"))
        return x + out
