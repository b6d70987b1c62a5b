"""A MODEL held against what is connected beside it: a prompt or a VAE of another model is refused in words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from ..goes_with import other_encoder, other_vae
from .carried import purpose_of

_KEY = "kontext_bridge_belonging"


def refuse_other_encoders(patcher: Any) -> None:
    """Have a run of this ModelPatcher or its clones with another's encodings refused before the model is loaded."""
    from comfy.patcher_extension import WrappersMP  # type: ignore[import-not-found]

    patcher.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, _KEY, _around)


def check_encodings(model: Any, *conditionings: Any) -> None:
    """Raises BadRequest for CONDITIONINGs whose states are not as wide as those that the MODEL reads."""
    _check(getattr(model, "model", None), (states for one in conditionings for states, _ in one or []))


def check_vae(model: Any, vae: Any) -> None:
    """Raises BadRequest for the demo model's MODEL with another VAE, and for its VAE with another MODEL."""
    called = purpose_of(model).called
    if purpose_of(getattr(vae, "patcher", None)).called != called:
        raise other_vae(called)


def _around(executor: Any, *arguments: Any, **named: Any) -> Any:
    guider = executor.class_obj
    given = [one.get("cross_attn") for some in guider.conds.values() for one in some or []]
    _check(guider.model_patcher.model, given)
    return executor(*arguments, **named)


def _check(model: Any, states: Iterable[Any]) -> None:
    flux = getattr(model, "diffusion_model", None)
    expected = getattr(getattr(flux, "params", None), "context_in_dim", None)
    if expected is None:
        # Models of other makers have other insides, and are left to themselves.
        return
    for one in states:
        if isinstance(one, torch.Tensor) and one.shape[-1] != expected:
            raise other_encoder(one.shape[-1], expected)
