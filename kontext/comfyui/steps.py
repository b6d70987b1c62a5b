"""Work that a step need not do: what is known before the first step, and rows that nobody reads after the last block.

A quarter of FLUX's parameters turn the noise level, the guidance and the prompt's summary into shifts, scales and
gates: 77 layers that see one row a step. A sampler names all its noise levels before the first step, so each of these
layers is run once for all of them and then only looked up. The arithmetic is the layers' own; what is saved is reading
3.2 billion weights in every step, which matters most where they have to come from the computer's memory. They are the
last that dynamic VRAM gives room to.

Of the last block only the rows of the edited picture are read; of the text's and the references', keys and values.

Where anything might give a block other modulation than the schedule says, ComfyUI's own forward runs untouched. The
embeddings of text and references and the rotary tables are left to it as well: by arithmetic they are less than a
thousandth of a step.

Only for a running ComfyUI: importing this imports comfy.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import torch
from comfy.ldm.flux.layers import timestep_embedding  # type: ignore[import-not-found]
from comfy.patcher_extension import CallbacksMP, WrappersMP  # type: ignore[import-not-found]
from torch import nn
from torch.nn import functional

_KEY = "kontext_bridge"
_ATTRIBUTE = "kontext_bridge_steps"
_TIME_CHANNELS = 256
# Beyond this the tables (2 MB a step and picture in 16 bits) are larger than they are worth.
_MOST_STEPS = 200
# One for each condition of classifier-free guidance, where they are computed by themselves.
_TABLES = 2


@dataclass
class Table:
    """What the layers make of every step of a run.

    made_for: all that the outputs depend on but y [B, pooled] and guidance [B]. inputs: [steps, B, 1, H]. rows and
    made_for must not keep layers alive: a layer holds the tables, so both would stay until a garbage collection.
    """

    made_for: tuple[Any, ...]
    y: torch.Tensor
    guidance: torch.Tensor
    inputs: torch.Tensor
    rows: MutableMapping[nn.Module, torch.Tensor] = field(default_factory=weakref.WeakKeyDictionary)


@dataclass
class Steps:
    """The tables of one model; `current`, `index` and `read` are set while a step is computed.

    read: the rows of the edited picture, and how many rows there are with the text's and the references'.

    patches: the name ComfyUI gives to the patches that the model was loaded with; None while it is not loaded.
    """

    patches: object = None
    tables: list[Table] = field(default_factory=list)
    schedule: tuple[torch.Tensor, list[float]] | None = None
    current: Table | None = None
    index: int = 0
    read: tuple[slice, int] | None = None

    def look_up(
        self, layer: nn.Module, x: torch.Tensor, compute: Callable[[torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        """The layer's output for this step's x [B, 1, H]; all steps' are computed when it is first asked."""
        table = self.current
        if table is None or x.shape != table.inputs.shape[1:] or x.dtype != table.inputs.dtype:
            return compute(x)
        if layer not in table.rows:
            # A picture's steps together: its numbers must not depend on the others in its batch.
            computed = compute(table.inputs.squeeze(2).transpose(0, 1))
            table.rows[layer] = computed.transpose(0, 1)[:, :, None]
        return table.rows[layer][self.index]

    def rows_read_whole(self, x: torch.Tensor) -> slice | None:
        """Which rows of x [B, L, K] are read whole after the last block; None where all may be."""
        return self.read[0] if self.read is not None and x.ndim == 3 and x.shape[1] == self.read[1] else None

    def levels(self, sigmas: torch.Tensor) -> list[float]:
        """The noise levels as numbers, read from the device once a run."""
        if self.schedule is None or self.schedule[0] is not sigmas:
            self.schedule = (sigmas, sigmas.float().tolist()[:-1])
        return self.schedule[1]

    def forget(self) -> None:
        self.tables.clear()
        self.schedule = self.patches = None


def foresee_steps(patcher: Any, modulation: list[nn.Module]) -> Steps:
    """Have the ModelPatcher's Flux look its modulation up in tables, and skip rows that nobody reads.

    Gives the tables, which the modulation layers and those of the last block must be given.
    """
    # On the model, not on the patcher: a clone for another GPU shares the patcher's wrappers and has its own model.
    steps = Steps()
    setattr(patcher.model.diffusion_model, _ATTRIBUTE, steps)
    # What ComfyUI's dynamic VRAM asks a model for: the modules that it places first, and those it places last.
    patcher.model.get_dynamic_vram__units = lambda: ([], modulation)
    patcher.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, _KEY, _around)
    patcher.add_callback_with_key(CallbacksMP.ON_LOAD, _KEY, _loaded)
    patcher.add_callback_with_key(CallbacksMP.ON_DETACH, _KEY, _detached)
    return steps


def steps_of(flux: Any) -> Steps | None:
    """The tables of a model, where it was loaded by this pack."""
    found = getattr(flux, _ATTRIBUTE, None)
    return found if isinstance(found, Steps) else None


def _loaded(patcher: Any, *_: Any) -> None:
    steps: Steps | None = getattr(patcher.model.diffusion_model, _ATTRIBUTE, None)
    if steps is not None:
        steps.patches = patcher.patches_uuid


def _detached(patcher: Any, unpatch_all: bool) -> None:
    steps: Steps | None = getattr(patcher.model.diffusion_model, _ATTRIBUTE, None)
    if unpatch_all and steps is not None:
        steps.forget()


def _around(
    executor: Any,
    x: torch.Tensor,
    timestep: torch.Tensor,
    context: torch.Tensor,
    y: torch.Tensor | None = None,
    guidance: torch.Tensor | None = None,
    ref_latents: Any = None,
    control: Any = None,
    transformer_options: dict[str, Any] | None = None,
    **more: Any,
) -> Any:
    options = transformer_options or {}
    steps: Steps | None = getattr(executor.class_obj, _ATTRIBUTE, None)
    if steps is None or not _is_plain(options, more):
        return executor(x, timestep, context, y, guidance, ref_latents, control, options, **more)
    try:
        if y is not None and guidance is not None:
            place = _place(steps, executor.class_obj, x.dtype, timestep, y, guidance, options["sample_sigmas"])
            steps.current, steps.index = place or (None, 0)
        if not options.get("patches"):
            steps.read = _read(context, x, ref_latents or [])
        return executor(x, timestep, context, y, guidance, ref_latents, control, options, **more)
    finally:
        steps.current = steps.read = None


def _read(context: torch.Tensor, x: torch.Tensor, references: list[torch.Tensor]) -> tuple[slice, int]:
    """The rows of the picture in text, picture and references, and how many rows there are."""
    text = context.shape[1]
    picture, *others = (math.ceil(latent.shape[2] / 2) * math.ceil(latent.shape[3] / 2) for latent in (x, *references))
    return slice(text, text + picture), text + picture + sum(others)


def _is_plain(options: dict[str, Any], more: dict[str, Any]) -> bool:
    """Whether every block gets the modulation that the schedule says."""
    return (
        "sample_sigmas" in options
        and not options.get("patches_replace")
        and more.get("ref_latents_method") != "index_timestep_zero"
        and not torch.compiler.is_compiling()
    )


def _place(
    steps: Steps,
    flux: Any,
    dtype: torch.dtype,
    timestep: torch.Tensor,
    y: torch.Tensor,
    guidance: torch.Tensor,
    sigmas: torch.Tensor,
) -> tuple[Table, int] | None:
    """This step's table and its row there; None for a noise level that the sampler has not announced."""
    levels = steps.levels(sigmas)
    if steps.patches is None or not 1 < len(levels) <= _MOST_STEPS:
        return None
    embedders = tuple(weakref.ref(module) for module in (flux.time_in, flux.guidance_in, flux.vector_in))
    made_for = (levels, len(timestep), dtype, y.device, steps.patches, embedders)
    candidates = [table for table in steps.tables if table.made_for == made_for and table.y.shape == y.shape]
    # One reading from the device for all there is to know.
    same = [((table.y == y).all() & (table.guidance == guidance).all()).float()[None] for table in candidates]
    told = torch.cat([timestep.float(), *same]).tolist()
    now, is_same = told[: len(timestep)], told[len(timestep) :]
    if now[0] not in levels or any(level != now[0] for level in now):
        return None
    table = next((table for table, same in zip(candidates, is_same, strict=True) if same), None)
    if table is None:
        table = Table(made_for, y, guidance, _inputs(flux, levels, y, guidance, dtype))
        steps.tables = [*steps.tables, table][-_TABLES:]
    return table, levels.index(now[0])


def _inputs(
    flux: Any, levels: list[float], y: torch.Tensor, guidance: torch.Tensor, dtype: torch.dtype
) -> torch.Tensor:
    """What modulates the blocks at each noise level: [steps, B, 1, H]."""
    times = torch.tensor(levels, device=y.device)
    # Not a picture a step: layers multiply each picture by itself.
    (time,) = flux.time_in(timestep_embedding(times, _TIME_CHANNELS).to(dtype)[None])
    led = flux.guidance_in(timestep_embedding(guidance, _TIME_CHANNELS).to(dtype))
    summary = flux.vector_in(y[:, : flux.params.vec_in_dim])
    # In ComfyUI's order: in 16 bits another one rounds otherwise.
    return functional.silu(time[:, None] + led[None] + summary[None])[:, :, None]
