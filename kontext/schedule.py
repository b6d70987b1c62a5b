"""The noise levels of an edit, on the schedule Kontext was trained for."""

from __future__ import annotations

import math

import torch

from .errors import BadRequest

# Kontext shifts more noise into the steps of larger pictures, along a line through these two points
# (diffusers, pipelines/flux/pipeline_flux_kontext.py, calculate_shift; BFL's sampling.py has the same line).
_SMALL = (256, 0.5)
_LARGE = (4096, 1.15)


def schedule(steps: int, tokens: int) -> torch.Tensor:
    """Noise levels [steps + 1], float32, falling from 1 to 0.

    tokens: how many tokens the edited picture has, references not counted. Raises BadRequest below one step.
    """
    if steps < 1:
        raise BadRequest(f"An edit needs at least one step, and {steps} were asked for.")
    slope = (_LARGE[1] - _SMALL[1]) / (_LARGE[0] - _SMALL[0])
    shift = math.exp(_SMALL[1] + slope * (tokens - _SMALL[0]))
    even = torch.linspace(1, 1 / steps, steps, dtype=torch.float64)
    return torch.cat([shift / (shift + 1 / even - 1), torch.zeros(1, dtype=torch.float64)]).float()
