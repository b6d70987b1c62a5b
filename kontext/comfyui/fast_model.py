"""The approximations of kontext/fast on a MODEL of ComfyUI, through its own wrappers and patches.

Around a whole run (OUTER_SAMPLE) its state is made, and put among the options that ComfyUI hands to each call of that
run alone: another run of the same model has its own or none. Around a call (DIFFUSION_MODEL) references are made
smaller, and patches are laid for that call: at the input, where tokens are left out and get their places; and around
every block, which is run, or passed by. Patches of others stay where they are, inside these. Where one could count the
tokens that it sees, none is left out.

Only for a running ComfyUI: importing this imports comfy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from comfy.patcher_extension import WrappersMP  # type: ignore[import-not-found]

from ..errors import BadRequest
from ..fast.evaluations import OneCall, Run
from ..fast.measured import Clock, compared
from ..fast.tally import Tally
from ..fast.wishes import Wishes
from ..latents import ReferenceMethod, pack, positions, unpack
from .lora import size_of
from .steps import steps_of
from .uncompiled import without_compiler

_KEY = "kontext_bridge_fast"
_CLOCK = "kontext_bridge_clock"
Told = Callable[[list[str]], None]

OTHERS = "a patch or a ControlNet of another node is at work: its calls ran whole"
METHOD = "reference: not made smaller, for its place is told in a way of another node's"


@dataclass(frozen=True)
class NodeWishes:
    """What a node asks for. told: what is called after each run, with a fact a line.

    measure: whether each run is also carried out exactly; vae: by which the two results become pictures, if any.
    """

    wishes: Wishes
    told: Told
    measure: bool = False
    vae: Any = None


def with_fast(model: Any, asking: NodeWishes) -> Any:
    """A clone of the MODEL whose runs are approximated; replaces what an earlier one asked for.

    Raises BadRequest for a MODEL that is no FLUX.1.
    """
    size = size_of(model)
    if not size.doubles or not size.singles:
        raise BadRequest("This MODEL has not both kinds of FLUX.1's blocks. Connect Load Kontext (FP8).")
    patched = model.clone()
    for kind in (WrappersMP.OUTER_SAMPLE, WrappersMP.DIFFUSION_MODEL):
        patched.remove_wrappers_with_key(kind, _KEY)
    if asking.wishes:
        patched.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, _KEY, partial(_around_run, asking))
        patched.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, _KEY, _around_call)
    return patched


def _around_run(asking: NodeWishes, executor: Any, noise: Any, *arguments: Any, **named: Any) -> Any:
    if not isinstance(noise, torch.Tensor) or noise.ndim != 4 or any(side % 2 for side in noise.shape[2:]):
        asking.told(["nothing was left out: the latent is none of pictures in multiples of 16 pixels"])
        return executor(noise, *arguments, **named)
    guider, tally = executor.class_obj, Tally()
    run = Run(asking.wishes, noise.shape[2], noise.shape[3], tally)

    def fast(clock: Clock | None = None) -> torch.Tensor:
        with _in_options(guider, run, clock):
            latent: torch.Tensor = executor(noise, *arguments, **named)
            return latent

    with without_compiler():
        if asking.measure:
            decode = None if asking.vae is None else asking.vae.decode
            exactly = partial(_exact_run, guider, executor, noise, arguments, named)
            latent, lines = compared(exactly, fast, tally, decode)
        else:
            latent = fast()
            lines = tally.said(None)
    asking.told(lines)
    return latent


@contextmanager
def _in_options(guider: Any, run: Run | None, clock: Clock | None) -> Iterator[None]:
    """Within the block every call of the guider's run finds these among its options."""
    options = guider.model_options.setdefault("transformer_options", {})
    before = {name: options.get(name) for name in (_KEY, _CLOCK)}
    options.update({_KEY: run, _CLOCK: clock})
    try:
        yield
    finally:
        options.update(before)


def _exact_run(
    guider: Any, executor: Any, noise: Any, arguments: tuple[Any, ...], named: dict[str, Any], clock: Clock
) -> torch.Tensor:
    """The same run as it is without approximations; the guider and the generators stay as they are."""
    # A run changes the conditions as it takes them up.
    conditions = {name: [one.copy() for one in some] for name, some in guider.conds.items()}
    devices = [device] if (device := guider.model_patcher.load_device).type == "cuda" else []
    # The callback shows previews and progress, which are those of the run that counts; its place is the fifth.
    quiet = (*arguments[:4], None, *arguments[5:])[: len(arguments)]
    silent = {**named, **({"callback": None} if "callback" in named else {})}
    try:
        with torch.random.fork_rng(devices), _in_options(guider, None, clock):
            latent: torch.Tensor = executor(noise.clone(), *quiet, **silent)
    finally:
        guider.conds = conditions
    return latent


def _around_call(
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
    run: Run | None = options.get(_KEY)
    clock: Clock | None = options.get(_CLOCK)

    def call() -> Any:
        given = (x, timestep, context, y, guidance, ref_latents, control, options)
        if run is None or torch.compiler.is_compiling():
            return executor(*given, **more)
        return _shortened(run, executor, *given, more)

    return call() if clock is None else clock.timed(x.device, call)


def _shortened(
    run: Run,
    executor: Any,
    x: torch.Tensor,
    timestep: torch.Tensor,
    context: torch.Tensor,
    y: torch.Tensor | None,
    guidance: torch.Tensor | None,
    ref_latents: Any,
    control: Any,
    options: dict[str, Any],
    more: dict[str, Any],
) -> Any:
    level = options.get("sigmas", timestep).flatten()[0].item()
    if control is not None or x.shape[2:] != (run.height, run.width):
        # A ControlNet adds to every block; an area of the picture is not where the mask takes it to be.
        run.tally.note(OTHERS)
        return executor(x, timestep, context, y, guidance, ref_latents, control, options, **more)
    here = _Here.of(run, x, context, list(ref_latents or []), level, options, more)
    out = executor(
        x, timestep, context, y, guidance, here.references or None, None, here.patched(executor.class_obj), **more
    )
    return here.finished(x, out, executor.class_obj)


@dataclass
class _Here:
    """One call: how many rows of what there are, and the patches that are laid for it."""

    run: Run
    call: OneCall
    text: int
    picture: int
    whole: int
    references: list[torch.Tensor]
    places: torch.Tensor | None
    options: dict[str, Any]

    @classmethod
    def of(
        cls,
        run: Run,
        x: torch.Tensor,
        context: torch.Tensor,
        references: list[torch.Tensor],
        level: float,
        options: dict[str, Any],
        more: dict[str, Any],
    ) -> _Here:
        others = bool(
            options.get("patches") or options.get("patches_replace") or more.get("attention_mask") is not None
        )
        if others and run.wishes.leaves_out:
            run.tally.note(OTHERS)
        same = bool(references) and references[0].shape[2:] == x.shape[2:]
        source = pack(references[0]) if same else None
        condition = (tuple(options.get("uuids") or options.get("cond_or_uncond") or ()), x.device, tuple(x.shape))
        call = run.call(condition, level, source, all_tokens=others)
        whole = sum(one.shape[2] * one.shape[3] for one in references) // 4
        places = None
        if references and run.wishes.smaller > 1:
            method = _method(references, options, more)
            if method is None:
                run.tally.note(METHOD)
            else:
                sizes = [(one.shape[2], one.shape[3]) for one in references]
                references, places = run.references(references, positions(run.height, run.width, sizes, method))
        return cls(run, call, context.shape[1], run.height * run.width // 4, whole, references, places, options)

    @property
    def kept(self) -> int:
        return self.picture if self.call.rows is None else len(self.call.rows)

    def patched(self, flux: Any) -> dict[str, Any]:
        """The options of this call, with its patches laid around those of others."""
        options = dict(self.options)
        steps = steps_of(flux)
        if steps is not None and steps.read is not None:
            fewer = sum(one.shape[2] * one.shape[3] for one in self.references) // 4
            steps.read = (slice(self.text, self.text + self.kept), self.text + self.kept + fewer)
        if self.places is not None or self.call.rows is not None:
            patches = dict(options.get("patches") or {})
            options["patches"] = {**patches, "post_input": [*patches.get("post_input", []), self.at_the_input]}
        if not self.call.caches and self.call.rows is None:
            return options
        replaced = dict(options.get("patches_replace") or {})
        blocks = dict(replaced.get("dit") or {})
        for number in range(len(flux.double_blocks)):
            key = ("double_block", number)
            blocks[key] = partial(self.double, blocks.get(key), number)
        last = len(flux.single_blocks) - 1
        for number in range(last + 1):
            key = ("single_block", number)
            blocks[key] = partial(self.single, blocks.get(key), number == last)
        options["patches_replace"] = {**replaced, "dit": blocks}
        return options

    def at_the_input(self, given: dict[str, Any]) -> dict[str, Any]:
        img, ids = given["img"], given["img_ids"]
        if self.places is not None:
            moved = self.places[self.picture :].to(ids)
            ids = ids.clone()
            ids[:, self.picture : self.picture + len(moved)] = moved
        if self.call.rows is not None:
            img, ids = (
                torch.cat([self.call.kept(rows[:, : self.picture]), rows[:, self.picture :]], 1) for rows in (img, ids)
            )
        return {**given, "img": img, "img_ids": ids}

    def double(self, others: Any, number: int, given: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
        if self.call.ends:
            return {"img": given["img"], "txt": given["txt"]}
        if number == 0:
            self.call.enter(given["img"][:, : self.kept])
        out: dict[str, Any] = others(given, extra) if others is not None else extra["original_block"](given)
        if number == 0:
            self.call.after_first(out["img"][:, : self.kept])
        return out

    def single(self, others: Any, is_last: bool, given: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
        if self.call.ends:
            out = {"img": given["img"]}
        else:
            out = others(given, extra) if others is not None else extra["original_block"](given)
        if not is_last:
            return out
        img = out["img"]
        mine = slice(self.text, self.text + self.kept)
        rows = self.call.after_last(img[:, mine])
        if self.call.rows is None:
            img = torch.cat([img[:, : mine.start], rows, img[:, mine.stop :]], 1)
        else:
            # ComfyUI reads as many rows as the picture has; those that were left out are filled in afterwards.
            img = torch.cat([img[:, : mine.start], img.new_zeros(len(img), self.picture, img.shape[2])], 1)
            img[:, mine.start + self.call.rows.to(img.device)] = rows
        return {**out, "img": img}

    def finished(self, x: torch.Tensor, out: torch.Tensor, flux: Any) -> torch.Tensor:
        self.call.count(
            blocks=len(flux.double_blocks) + len(flux.single_blocks),
            text=self.text,
            picture=self.picture,
            reference=self.whole,
            fewer=sum(one.shape[2] * one.shape[3] for one in self.references) // 4,
        )
        if self.call.source is None:
            return out
        velocity = self.call.velocity(pack(x), self.call.kept(pack(out)))
        return unpack(velocity, self.run.height, self.run.width)


def _method(references: list[torch.Tensor], options: dict[str, Any], more: dict[str, Any]) -> ReferenceMethod | None:
    """How ComfyUI tells these references apart, where it is a way that is known here too."""
    even = all(side % 2 == 0 for one in references for side in one.shape[2:])
    if not even or options.get("rope_options") is not None:
        return None
    return {"offset": ReferenceMethod.OFFSET, "index": ReferenceMethod.INDEX}.get(
        more.get("ref_latents_method", ReferenceMethod.OFFSET.value)
    )
