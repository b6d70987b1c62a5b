"""What the local nodes do: files into MODELs, pictures into edits. Loaded when a node first runs, inside ComfyUI."""

from __future__ import annotations

import json
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from ... import host
from ...editing.words import ASPECT_RATIO, GUIDANCE, SEED, SEEDS, STEPS, AspectRatio, Keep
from ...imaging import canvas as canvases
from ...imaging.keep.switch import KeptEdits, keep_edits
from ...imaging.pixels import check_image
from ...kontext.comfyui.belonging import check_encodings, check_vae
from ...kontext.comfyui.carried import carry, purpose_of
from ...kontext.demo.shipped import demo_files
from ...kontext.edit import LatentEdit
from ...kontext.errors import BadRequest, NonFinite
from ...kontext.fp8.compute import Compute
from ...kontext.goes_with import vae_of
from .. import checks
from . import model_files as files
from .inside import inside_comfyui
from .noted import note_edits
from .says import LOADING, Says

if TYPE_CHECKING:
    from ...kontext.checkpoint.purpose import Purpose
    from ...kontext.comfyui.load import Loaded

_COMPUTE = {"auto": Compute.AUTO, "FP8": Compute.FP8, "bf16": Compute.STORAGE}
_PROMPTS_KEPT = 8


@dataclass(frozen=True)
class Edited:
    """The result of a node's edits: IMAGE [B,H,W,C] and the info text.

    raw: the edits as they were decoded. says: what Keep says of each, a line each; None where it was not asked.
    """

    image: torch.Tensor
    info: str
    raw: torch.Tensor
    says: str | None = None


def load(name: str, compute: str, *, compiled: bool) -> Loaded:
    """Load Kontext (FP8): the MODEL in a file of diffusion_models; raises KontextError."""
    compute, compiled = checks.text(compute, "compute"), checks.switch(compiled, "compile")
    with Says() as says:
        path = files.path("diffusion_models", checks.text(name, "file"))
        if compute not in _COMPUTE:
            raise BadRequest(f"compute is {compute!r}; choose one of {', '.join(_COMPUTE)}.")

        def loaded() -> Loaded:
            from ...kontext.comfyui import load as comfyui

            says.doing(LOADING)
            return comfyui.load(path, _COMPUTE[compute], compiled=compiled)

        return inside_comfyui(loaded)


@dataclass(frozen=True)
class LoadedDemo:
    """The demo model as MODEL, CLIP and VAE, and what there is to know about it."""

    model: Any
    clip: Any
    vae: Any
    description: str


def load_demo() -> LoadedDemo:
    """Load Kontext Demo: what comes with the pack; raises KontextError."""
    demo = demo_files()

    def loaded() -> LoadedDemo:
        from ...kontext.comfyui import companions
        from ...kontext.comfyui import load as comfyui

        found = comfyui.load(demo.transformer)
        side = round(purpose_of(found.model).pixels ** 0.5)
        told = f"Demo model, for pictures of about {side}x{side}: a demonstration, not FLUX.1 Kontext\n"
        vae = companions.vae(demo.vae)
        carry(vae.patcher, purpose_of(found.model))
        return LoadedDemo(found.model, companions.clip(demo.text), vae, told + found.description)

    return inside_comfyui(loaded)


def with_lora(model: Any, name: str, strength: float) -> Any:
    """Kontext LoRA: the MODEL with a file of loras; raises KontextError."""
    strength = checks.number(strength, "strength")
    path = files.path("loras", checks.text(name, "file"))

    def patched() -> Any:
        from ...kontext.comfyui import lora as comfyui_lora

        return comfyui_lora.with_lora(model, path, strength)

    return inside_comfyui(patched)


def latents(references: dict[str, Any]) -> list[torch.Tensor]:
    """The tensors of some LATENTs by the names of their sockets; raises BadRequest for a value that is no LATENT."""
    found = []
    for name, latent in references.items():
        samples = latent.get("samples") if isinstance(latent, dict) else None
        if not isinstance(samples, torch.Tensor) or not samples.ndim:
            raise BadRequest(f"{name} takes a LATENT, and something else is connected. Connect an encoded picture.")
        found.append(samples)
    return found


def sample(
    model: Any,
    positive: Any,
    negative: Any,
    cfg: float,
    references: list[torch.Tensor],
    width: int,
    height: int,
    steps: int,
    guidance: float,
    seed: int,
) -> torch.Tensor:
    """Kontext Sample: a latent [B,16,height/8,width/8], B the most pictures that a reference has."""
    with Says() as says:
        if not references:
            raise BadRequest("Kontext edits pictures, and no reference is connected. Connect an encoded picture.")
        width, height = checks.whole(width, "width"), checks.whole(height, "height")
        steps, seed = checks.whole(steps, "steps"), checks.whole(seed, "seed")
        guidance, cfg = checks.number(guidance, "guidance"), checks.number(cfg, "cfg")
        batch = max(reference.shape[0] for reference in references)
        edit = LatentEdit(width, height, steps=steps, guidance=guidance, batch=batch, true_cfg=cfg)
        _refuse_other_size(purpose_of(model), width, height)

        def sampled() -> torch.Tensor:
            from ...kontext.comfyui import sampler as comfyui_sampler

            says.doing(LOADING)
            report = _progress(model, steps, says)(0)
            return comfyui_sampler.sample(
                model, edit, positive, references, seed=seed, negative=negative, callback=report
            )

        return inside_comfyui(sampled)


def _refuse_other_size(purpose: Purpose, width: int, height: int) -> None:
    if not purpose.is_far_exceeded(width, height):
        return
    raise BadRequest(
        f"The {purpose.called} edits pictures of about {purpose.megapixels:.2g} megapixels, and {width}x{height} is "
        f"far more. Set megapixels to {purpose.megapixels:.2g} in Kontext Prepare, and take width and height from it."
    )


def edit(
    model: Any,
    clip: Any,
    vae: Any,
    image: torch.Tensor,
    *,
    prompt: str,
    aspect_ratio: str = ASPECT_RATIO.default,
    steps: int = STEPS.default,
    guidance: float = GUIDANCE.default,
    seed: int = SEED.default,
    variations: int = 1,
    keep: str = Keep.OFF.value,
) -> Edited:
    """Kontext Edit (Local FP8): every picture of an IMAGE [B,H,W,C] edited by itself.

    With match_input_image each comes back at its own size; another aspect ratio is sampled as a new shape and comes
    back in the size it was sampled at. Raises KontextError or ImageError.
    """
    with Says() as says:
        pictures = check_image(image)
        wanted = _checked(prompt, aspect_ratio, steps, guidance, seed, variations, keep)
        return inside_comfyui(lambda: _Run(model, clip, vae, *wanted, says).edit(pictures))


def _checked(
    prompt: str,
    aspect_ratio: str,
    steps: int,
    guidance: float,
    seed: int,
    variations: int,
    keep: str,
) -> tuple[str, str, LatentEdit, int, int, bool]:
    """What a whole edit was asked for, checked, as `_Run` takes it; raises BadRequest."""
    prompt = checks.text(prompt, "prompt")
    steps, seed = checks.whole(steps, "steps"), checks.whole(seed, "seed")
    variations, guidance = checks.whole(variations, "variations"), checks.number(guidance, "guidance")
    aspect_ratio = checks.member(AspectRatio, aspect_ratio, "aspect_ratio").value
    keeps = checks.member(Keep, keep, "keep") is Keep.AUTO
    if not prompt.strip():
        raise BadRequest("The prompt is empty: say in a sentence what to change.")
    if variations < 1:
        raise BadRequest(f"variations is {variations}; at least one result must be made.")
    return prompt, aspect_ratio, LatentEdit(16, 16, steps, guidance), seed, variations, keeps


@dataclass
class _Run:
    """One run of Kontext Edit (Local FP8)."""

    model: Any
    clip: Any
    vae: Any
    prompt: str
    aspect_ratio: str
    settings: LatentEdit
    seed: int
    variations: int
    keeps: bool
    says: Says

    def edit(self, image: torch.Tensor) -> Edited:
        began = time.monotonic()
        purpose = purpose_of(self.model)
        count = len(image) * self.variations
        check_vae(self.model, self.vae)
        self.says.of(count)
        self.says.doing("encoding")
        positive = _encoded(self.clip, self.prompt)
        check_encodings(self.model, positive)
        report = _progress(self.model, self.settings.steps, self.says, count)
        pictures: list[torch.Tensor] = []
        at_scale: list[torch.Tensor] = []
        told: list[dict[str, Any]] = []
        for number, source in enumerate(image, start=1):
            self.says.doing("encoding")
            canvas = canvases.prepare(source[None], megapixels=purpose.megapixels)
            wanted = self._wanted(canvas)
            reference = self._latent(canvas.prepared, number)
            for _ in range(self.variations):
                since, done = time.monotonic(), len(pictures)
                seed = (self.seed + done) % SEEDS
                picture = self._edited(canvas, wanted, reference, positive, seed, report(done))
                pictures.append(picture)
                if self.keeps:
                    at_scale += canvases.at_its_scale(picture, canvas) if self.keeps_shape else picture
                told.append(
                    {
                        "edit": done + 1,
                        "picture": number,
                        "seed": seed,
                        "size_sent": f"{source.shape[1]}x{source.shape[0]}",
                        "size_returned": f"{picture.shape[2]}x{picture.shape[1]}",
                        "seconds": round(time.monotonic() - since, 2),
                    }
                )
        raw = torch.cat(pictures)
        kept = self._kept(image, at_scale, raw) if self.keeps else None
        self._note(image, raw if kept is None else kept.image, told, purpose.called)
        if kept is not None:
            told = [{**about, "keep": found} for about, found in zip(told, kept.told, strict=True)]
        by = {} if purpose.called is None else {"model": purpose.called}
        info = json.dumps({"edits": told, **by, "seconds": round(time.monotonic() - began, 2)}, indent=2)
        return Edited(raw, info, raw) if kept is None else Edited(kept.image, info, raw, kept.says)

    @property
    def keeps_shape(self) -> bool:
        return self.aspect_ratio == AspectRatio.MATCH.value

    def _note(self, image: torch.Tensor, edited: torch.Tensor, told: list[dict[str, Any]], called: str | None) -> None:
        asked = {
            "aspect_ratio": self.aspect_ratio,
            "steps": self.settings.steps,
            "guidance": self.settings.guidance,
            "keep": self.keeps,
            **({} if called is None else {"model": called}),
        }
        sources = [image[place // self.variations] for place in range(len(edited))]
        note_edits(sources, edited, self.prompt, asked, told)

    def _kept(self, image: torch.Tensor, at_scale: list[torch.Tensor], raw: torch.Tensor) -> KeptEdits:
        self.says.doing("keeping what was not edited")
        bar = host.bar(len(raw))
        sources = [image[place // self.variations] for place in range(len(raw))]
        return keep_edits(sources, at_scale, raw, host.check, lambda place: bar(place + 1))

    def _latent(self, prepared: torch.Tensor, number: int) -> torch.Tensor:
        latent: torch.Tensor = self.vae.encode(prepared[..., :3])
        if not bool(torch.isfinite(latent).all()):
            vae = vae_of(purpose_of(self.model))
            raise NonFinite(f"Encoding picture {number} gave NaN or infinity. Connect {vae}.")
        return latent

    def _wanted(self, canvas: canvases.Canvas) -> LatentEdit:
        """The edit at its size; raises BadRequest for one that cannot be, before anything is encoded."""
        height, width = canvas.prepared.shape[1:3]
        if not self.keeps_shape:
            megapixels = purpose_of(self.model).megapixels
            width, height = canvases.pick_size(self.aspect_ratio, width, height, megapixels)
        return replace(self.settings, width=width, height=height)

    def _edited(
        self,
        canvas: canvases.Canvas,
        wanted: LatentEdit,
        reference: torch.Tensor,
        positive: Any,
        seed: int,
        report: Any,
    ) -> torch.Tensor:
        from ...kontext.comfyui import sampler as comfyui_sampler

        self.says.doing(LOADING)
        latent = comfyui_sampler.sample(self.model, wanted, positive, [reference], seed=seed, callback=report)
        self.says.doing("decoding")
        picture: torch.Tensor = self.vae.decode(latent)
        if not bool(torch.isfinite(picture).all()):
            raise NonFinite(f"Decoding the edit of seed {seed} gave NaN. Connect {vae_of(purpose_of(self.model))}.")
        return canvases.restore(picture, canvas) if self.keeps_shape else picture.clamp(0, 1)


# By the CLIP object, so that encodings go when it goes. A text encoder is as large as the model: loading it again
# only because the seed has changed would push the model out of the GPU.
_encodings: weakref.WeakKeyDictionary[Any, dict[str, Any]] = weakref.WeakKeyDictionary()


def _encoded(clip: Any, prompt: str) -> Any:
    kept = _encodings.setdefault(clip, {})
    if prompt not in kept:
        encoding = clip.encode_from_tokens_scheduled(clip.tokenize(prompt))
        if len(kept) >= _PROMPTS_KEPT:
            kept.pop(next(iter(kept)))
        kept[prompt] = encoding
    return kept[prompt]


def _progress(model: Any, steps: int, says: Says, edits: int = 1) -> Callable[[int], Any]:
    """Reporters for one bar over all edits: each counts on from the edits that were done before it."""
    import latent_preview  # type: ignore[import-not-found]

    total = steps * edits
    shown = latent_preview.prepare_callback(model, total)

    def of_edit(done: int) -> Any:
        def report(step: int, x0: Any, x: Any, _: int) -> None:
            says.step(done, step + 1, steps)
            shown(done * steps + step, x0, x, total)

        return report

    return of_edit
