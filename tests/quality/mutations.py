"""Plausible mistakes of a sampler, each as a patch of this pack's own: what the judge of pictures has to catch.

All of them leave shapes and ranges as they were, so that nothing but the picture shows them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

import torch
from demo_judge import Bounds
from kontext_bridge.kontext.fp8.branches import Branch
from kontext_bridge.kontext.standalone import denoiser, lora, mount, sampler, vae
from kontext_bridge.kontext.standalone.denoiser import Denoiser
from kontext_bridge.training.instructions import EditKind
from torch.nn import functional

Mutation = Callable[[], AbstractContextManager[Any]]
UNCHANGED = "as it is"
# A case of each of these, at so few steps: as it is, the demo model does them all right.
KINDS = (EditKind.RECOLOUR, EditKind.REMOVE, EditKind.SEASON, EditKind.SWAP)
STEPS = 5
BOUNDS = Bounds()


def _positions(change: Callable[[torch.Tensor, int], None]) -> Mutation:
    """change is given the places [tokens, 3] and how many of them are the edited picture's."""
    real = denoiser.positions

    def positions(height: int, width: int, references: Any = (), *others: Any) -> torch.Tensor:
        places = real(height, width, references, *others)
        change(places, height * width // 4)
        return places

    return lambda: mock.patch.object(denoiser, "positions", positions)


def _reference_on_the_pictures_plane(places: torch.Tensor, own: int) -> None:
    places[own:, 0] = 0


def _reference_on_plane_two(places: torch.Tensor, own: int) -> None:
    places[own:, 0] = 2


def _planes_exchanged(places: torch.Tensor, own: int) -> None:
    places[:, 0] = 1 - places[:, 0]


def _rows_for_columns(places: torch.Tensor, own: int) -> None:
    places[:] = places[:, [0, 2, 1]]


def _reference_beside(places: torch.Tensor, own: int) -> None:
    places[own:, 2] += 1


def _sigmas(change: Callable[[torch.Tensor], torch.Tensor]) -> Mutation:
    real = sampler.schedule
    return lambda: mock.patch.object(sampler, "schedule", lambda *given: change(real(*given)))


def _denoiser(**changes: Callable[[Any], Any]) -> Mutation:
    """Changes of what a Denoiser is made with, by the names of its arguments."""
    names = ("model", "conditioning", "references", "height", "width", "sigmas", "guidance")

    def made(*given: Any, **options: Any) -> Denoiser:
        arguments = dict(zip(names, given, strict=True))
        for name, change in changes.items():
            arguments[name] = change(arguments[name])
        return Denoiser(**arguments, **options)

    return lambda: mock.patch.object(sampler, "Denoiser", made)


def _method(name: str, method: Callable[..., Any]) -> Mutation:
    """method is given the real one, the denoiser, and what it was called with."""
    real = getattr(Denoiser, name)
    return lambda: mock.patch.object(Denoiser, name, lambda self, *given: method(real, self, *given))


def _noise_for_reference(real: Any, self: Any, tokens: torch.Tensor, step: int) -> Any:
    text, references = self._embedded
    self._embedded = (text, [self._model.x_embedder(tokens)])
    try:
        return real(self, self._references[0], step)
    finally:
        self._embedded = (text, references)


def _text_last(real: Any, self: Any) -> Any:
    return real(self).roll(-self._conditioning.text.shape[1], 0)


def _weights(change: Callable[[str, Any], Any]) -> Mutation:
    """change is given each layer by diffusers' name and its Weights, once it has been cut out of the file's."""
    real = mount._diffusers_layers

    def layers(*given: Any) -> Iterator[tuple[str, Any]]:
        for name, weights in real(*given):
            yield name, change(name, weights)

    return lambda: mock.patch.object(mount, "_diffusers_layers", layers)


def _scale_ignored(name: str, weights: Any) -> Any:
    forgotten = name == "single_transformer_blocks.0.proj_out"
    return replace(weights, scale=torch.ones_like(weights.scale)) if forgotten else weights


def _exchanged(one: str, other: str) -> Mutation:
    """Two layers of every block that are slices of one in the file, each with the other's rows."""
    real, swapped = mount._diffusers_layers, {one: other, other: one}

    def layers(*given: Any) -> Iterator[tuple[str, Any]]:
        for name, weights in real(*given):
            block, _, layer = name.rpartition(".")
            yield f"{block}.{swapped.get(layer, layer)}", weights

    return lambda: mock.patch.object(mount, "_diffusers_layers", layers)


def _padded(conditioning: Any) -> Any:
    return replace(conditioning, text=functional.pad(conditioning.text, (0, 0, 0, 240)))


def _halved(conditioning: Any) -> Any:
    return replace(conditioning, text=conditioning.text[:, :8])


def _vae(constant: str, value: float, *methods: str) -> Mutation:
    """One of the VAE's two constants, wrong in these methods of Autoencoder and right in the others."""
    reals = {name: getattr(vae.Autoencoder, name) for name in methods}

    def wrong(name: str) -> Callable[..., Any]:
        def method(self: Any, given: torch.Tensor) -> Any:
            with mock.patch.object(vae, constant, value):
                return reals[name](self, given)

        return method

    return lambda: mock.patch.multiple(vae.Autoencoder, **{name: wrong(name) for name in methods})


def _shifted(references: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    return [reference.roll(1, 3) for reference in references]


def _unscaled(down: torch.Tensor, up: torch.Tensor, offset: int, scale: float) -> Branch:
    # As where alpha is taken for 1 beside a rank of 8.
    return Branch(down, up, offset, scale / 8)


def _branches(one: str, other: str) -> Mutation:
    """A LoRA's branches beside one slice of a fused layer, and those of the other beside the first."""
    real, swapped = lora._placed, {one: other, other: one}

    def placed(*given: Any) -> Iterator[tuple[str, int, slice]]:
        for name, offset, rows in real(*given):
            block, _, layer = name.rpartition(".")
            yield f"{block}.{swapped.get(layer, layer)}", offset, rows

    return lambda: mock.patch.object(lora, "_placed", placed)


_SCALED = vae._SCALE * 1.02

MUTATIONS: dict[str, Mutation] = {
    "reference on the picture's own plane": _positions(_reference_on_the_pictures_plane),
    "planes of picture and reference exchanged": _positions(_planes_exchanged),
    "rows taken for columns": _positions(_rows_for_columns),
    "reference a token to the right": _positions(_reference_beside),
    "ids of picture and text exchanged": _method("_rotate", _text_last),
    "reference and noise exchanged": _method("__call__", _noise_for_reference),
    "sigmas reversed": _sigmas(lambda sigmas: sigmas.flip(0)),
    "the model told the time of the step before": _denoiser(sigmas=lambda sigmas: sigmas.roll(1)),
    "the model told the time in reverse": _denoiser(sigmas=lambda sigmas: 1 - sigmas),
    "guidance over a thousand": _denoiser(guidance=lambda guidance: guidance / 1000),
    "text padded with zeros to 256": _denoiser(conditioning=_padded),
    "latents of the reference shifted by one": _denoiser(references=_shifted),
    "one layer's scale ignored": _weights(_scale_ignored),
    "key and value exchanged": _exchanged("to_k", "to_v"),
    "query and key exchanged": _exchanged("to_q", "to_k"),
    "query and value exchanged": _exchanged("to_q", "to_v"),
    "VAE scale off by 2 %": _vae("_SCALE", _SCALED, "encode", "decode"),
    "VAE scale off by 2 % the other way": _vae("_SCALE", vae._SCALE * 0.98, "encode", "decode"),
    "VAE scale off by 2 % where it encodes": _vae("_SCALE", _SCALED, "encode"),
    "VAE scale off by 2 % where it decodes": _vae("_SCALE", _SCALED, "decode"),
    "VAE shift left out": _vae("_SHIFT", 0.0, "encode", "decode"),
    "VAE shift left out where it decodes": _vae("_SHIFT", 0.0, "decode"),
}


@dataclass(frozen=True)
class Telling:
    """A mistake that the model hardly minds with the KINDS, and those cases that tell of it.

    kinds: four of each. doubles: sentences with two edits.
    """

    mutation: Mutation
    kinds: tuple[EditKind, ...] = ()
    doubles: int = 0


# What paints sky, water and light anew hangs on the reference's plane the most; of a sentence with one edit the first
# eight words are enough, the more so as each knows of the others.
TELLING: dict[str, Telling] = {
    "reference on plane 2": Telling(_positions(_reference_on_plane_two), kinds=(EditKind.WEATHER,)),
    "text cut to half of its places": Telling(_denoiser(conditioning=_halved), doubles=4),
}

# With the demo's LoRA, and what it was taught.
LORA_MUTATIONS: dict[str, Mutation] = {
    "LoRA for the query on the value": _branches("to_q", "to_v"),
    "LoRA for the key on the value": _branches("to_k", "to_v"),
    "LoRA an eighth as strong as it was taught": lambda: mock.patch.object(lora, "Branch", _unscaled),
}
