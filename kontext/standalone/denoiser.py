"""One edit's transformer: everything that does not depend on the noisy latent is computed before the first step.

All of it is exact. Shifts, scales and gates of all steps come from one product a layer, in float32 (their layers,
27 % of the parameters, may stay off the device); the references' and the text's embeddings and the rotary tables
are computed once; of the last block and the last layer only the rows of the edited picture.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from ..fast.evaluations import OneCall, Run
from ..fp8.compilers import require_compiler
from ..fp8.compute import Linear, multiplies_fp8_rows
from ..latents import ReferenceMethod, pack, positions
from . import blocks
from .before_ampere import lacks_bfloat16


@dataclass(frozen=True)
class Conditioning:
    """A prompt as the transformer takes it: T5's states [B or 1, T, context], CLIP's pooled state [B or 1, pooled]."""

    text: torch.Tensor
    pooled: torch.Tensor


@dataclass(frozen=True)
class Exact:
    """Which savings are on. All are, unless one is being measured against its absence."""

    modulation: bool = True
    embeddings: bool = True
    positions: bool = True
    dead_rows: bool = True


@dataclass(frozen=True)
class _Modulation:
    """Shifts, scales (with their 1) and gates: [steps, B or 1, 1, H] each, stacked in front of that."""

    doubles: list[tuple[torch.Tensor, torch.Tensor]]
    singles: list[torch.Tensor]
    final: torch.Tensor


def placement(model: Any) -> tuple[torch.device, torch.dtype]:
    """Where a mounted model computes, and in which type (its weights may be FP8, a bias never is)."""
    bias: torch.Tensor = model.x_embedder.bias
    return bias.device, bias.dtype


class Denoiser:
    """The velocity of an edit at each of its steps.

    model: from `mount`. sigmas: the schedule, [steps + 1]. height, width: the edited latent's. references: latents
    [B or 1, 16, h, w]. Everything is moved to `device` and computed in `dtype`, the model's own. fast: what may be
    approximated in this run, shared by the denoisers of its prompts.
    """

    def __init__(
        self,
        model: Any,
        conditioning: Conditioning,
        references: Sequence[torch.Tensor],
        height: int,
        width: int,
        sigmas: torch.Tensor,
        guidance: float,
        *,
        method: ReferenceMethod = ReferenceMethod.OFFSET,
        exact: Exact | None = None,
        compiled: bool = False,
        fast: Run | None = None,
    ) -> None:
        self._model = model
        self._exact = exact or Exact()
        self.device, self.dtype = placement(model)
        self._conditioning = conditioning
        sizes = [(latent.shape[2], latent.shape[3]) for latent in references]
        self._positions = positions(height, width, sizes, method)
        self._fast = fast
        self._source = pack(references[0]).to(self.device) if sizes[:1] == [(height, width)] else None
        self._whole = sum(h * w for h, w in sizes) // 4
        if fast is not None:
            references, self._positions = fast.references(list(references), self._positions)
        self._references = [pack(latent) for latent in references]
        self._sigmas = sigmas[:-1]
        self._guidance = guidance
        if compiled:
            require_compiler(self.device)
            # Found out here, for it cannot be inside a graph.
            multiplies_fp8_rows(self.device)
            lacks_bfloat16(self.device)
        self._double: Any = _compiled(blocks.double_block) if compiled else blocks.double_block
        self._single: Any = _compiled(blocks.single_block) if compiled else blocks.single_block
        self._steps = self._modulation(self._sigmas) if self._exact.modulation else None
        self._embedded = self._embed() if self._exact.embeddings else None
        self._rotary = self._rotate() if self._exact.positions else None

    def __call__(self, tokens: torch.Tensor, step: int) -> torch.Tensor:
        """The velocity [B, L, 64], float32, at step `step` (from 0) of the noisy tokens [B, L, 64], float32."""
        if self._fast is None:
            return self._velocity(tokens, step, None)
        call = self._fast.call(id(self), float(self._sigmas[step]), self._source)
        velocity = call.velocity(tokens, self._velocity(call.kept(tokens), step, call))
        text, model = self._conditioning.text.shape[1], self._model
        call.count(
            blocks=len(model.transformer_blocks) + len(model.single_transformer_blocks),
            text=text,
            picture=tokens.shape[1],
            reference=self._whole,
            fewer=sum(reference.shape[1] for reference in self._references),
        )
        return velocity

    def _velocity(self, tokens: torch.Tensor, step: int, call: OneCall | None) -> torch.Tensor:
        """The same for those of the tokens that are computed."""
        model = self._model
        modulation, at = (self._steps, step) if self._steps else (self._modulation(self._sigmas[step : step + 1]), 0)
        text, references = self._embedded or self._embed()
        rotary = self._rotate() if self._rotary is None else self._rotary
        batch = tokens.shape[0]
        image = _each_by_itself(model.x_embedder, tokens.to(self.device, self.dtype))
        image = torch.cat([image, *(reference.expand(batch, -1, -1) for reference in references)], dim=1)
        text = text.expand(batch, -1, -1)
        first, end = text.shape[1], text.shape[1] + tokens.shape[1]
        if call is not None:
            rotary = _rows_of(rotary, call, first)
            call.enter(image[:, : end - first])
        doubles = zip(model.transformer_blocks, modulation.doubles, strict=True)
        for number, (block, (of_text, of_image)) in enumerate(doubles):
            text, image = self._double(block, text, image, of_text[:, at], of_image[:, at], rotary)
            if number == 0 and call is not None and call.after_first(image[:, : end - first]):
                return self._last_layer(call.after_last(image[:, : end - first]), modulation, at)
        x = torch.cat([text, image], dim=1)
        singles = list(zip(model.single_transformer_blocks, modulation.singles, strict=True))
        for block, of_block in singles[:-1]:
            x = self._single(block, x, of_block[:, at], rotary)
        block, of_block = singles[-1]
        if self._exact.dead_rows:
            x = self._single(block, x, of_block[:, at], rotary, (first, end))
        else:
            x = self._single(block, x, of_block[:, at], rotary)[:, first:end]
        return self._last_layer(x if call is None else call.after_last(x), modulation, at)

    def _last_layer(self, x: torch.Tensor, modulation: _Modulation, at: int) -> torch.Tensor:
        scale, shift = modulation.final[:, at]
        return _each_by_itself(self._model.proj_out, blocks.modulate(x, shift, scale)).float()

    def _embed(self) -> tuple[torch.Tensor, list[torch.Tensor]]:
        text = _each_by_itself(self._model.context_embedder, self._conditioning.text.to(self.device, self.dtype))
        references = [tokens.to(self.device, self.dtype) for tokens in self._references]
        return text, [_each_by_itself(self._model.x_embedder, tokens) for tokens in references]

    def _rotate(self) -> torch.Tensor:
        length = self._conditioning.text.shape[1]
        places = torch.cat([torch.zeros(length, 3), self._positions]).to(self.device)
        cosine, sine = self._model.pos_embed(places)
        # diffusers repeats every angle for the two numbers it turns.
        return torch.stack([cosine, sine], dim=-1)[:, None, ::2].contiguous()

    def _modulation(self, sigmas: torch.Tensor) -> _Modulation:
        steps, model = len(sigmas), self._model
        hidden = functional.silu(self._embed_time(sigmas))

        def table(layer: Linear, parts: int, scales: tuple[int, ...]) -> torch.Tensor:
            values = layer.exact(hidden).view(steps, -1, 1, parts, hidden.shape[1])
            values[..., scales, :] += 1
            return values.to(self.dtype).movedim(3, 0)

        return _Modulation(
            doubles=[
                (table(block.norm1_context.linear, 6, (1, 4)), table(block.norm1.linear, 6, (1, 4)))
                for block in model.transformer_blocks
            ],
            singles=[table(block.norm.linear, 3, (1,)) for block in model.single_transformer_blocks],
            final=table(model.norm_out.linear, 2, (0,)),
        )

    def _embed_time(self, sigmas: torch.Tensor) -> torch.Tensor:
        """What modulates every block: [steps * B or 1, H] float32, from time, guidance and the pooled prompt."""
        embed = self._model.time_text_embed
        time = embed.time_proj(sigmas.to(self.device) * 1000)
        guidance = embed.time_proj(torch.tensor([self._guidance * 1000], device=self.device))
        pooled = self._conditioning.pooled.to(self.device, torch.float32)
        moment = _two_layers(embed.timestep_embedder, time) + _two_layers(embed.guidance_embedder, guidance)
        return (moment[:, None] + _two_layers(embed.text_embedder, pooled)[None]).flatten(0, 1)


def _rows_of(rotary: torch.Tensor, call: OneCall, text: int) -> torch.Tensor:
    """The rotary rows of text, of those of the picture's tokens that the call keeps, and of references."""
    if call.rows is None:
        return rotary
    picture = text + call.run.height * call.run.width // 4
    return torch.cat([rotary[:text], rotary[text + call.rows.to(rotary.device)], rotary[picture:]])


def _each_by_itself(layer: Linear, x: torch.Tensor) -> torch.Tensor:
    """What a layer makes of each picture of x [B, L, K]: more rows at once may differ in the last digit."""
    # The layers of the blocks multiply in FP8, which makes much of it.
    outs: list[torch.Tensor] = [layer(picture) for picture in x.chunk(len(x))]
    return outs[0] if len(outs) == 1 else torch.cat(outs)


def _two_layers(embedder: Any, x: torch.Tensor) -> torch.Tensor:
    out: torch.Tensor = embedder.linear_2.exact(functional.silu(embedder.linear_1.exact(x)))
    return out


@functools.cache
def _compiled(block: Any) -> Any:
    """A block's function compiled once for all its instances and all sequence lengths."""
    return torch.compile(block, dynamic=True)
