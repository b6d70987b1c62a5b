"""The local side's nodes: load Kontext, put a LoRA on it, sample it, and a whole edit in one node."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from comfy_api.latest import io, ui

from ...editing.words import EDIT, GUIDANCE, SEED, STEPS
from .. import inputs
from . import model_files as files

if TYPE_CHECKING:
    import torch

_COMPUTE = ("auto", "FP8", "bf16")
_LARGEST_SIDE = 4096


class KontextLoadFP8(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KontextLoadFP8",
            display_name="Load Kontext (FP8)",
            category=inputs.CATEGORY,
            description="Loads FLUX.1 Kontext [dev] as a MODEL whose weights stay FP8. Reads every FP8 layout, refuses "
            "what it does not know instead of guessing, keeps LoRA beside the weights. Works with every stock node.",
            search_aliases=["load diffusion model", "unet loader", "fp8 scaled", "flux kontext"],
            inputs=[
                io.Combo.Input(
                    "file",
                    options=files.names("diffusion_models"),
                    tooltip="A Kontext file in models/diffusion_models: FP8 in any layout; 16 or 32 bits become FP8.",
                ),
                io.Combo.Input(
                    "compute",
                    options=list(_COMPUTE),
                    default=_COMPUTE[0],
                    advanced=True,
                    tooltip="auto multiplies in FP8 where the GPU can (RTX 40 series on), else in 16 bits. FP8 insists "
                    "on it. bf16 only stores in FP8: slower, and a little closer to the unquantised model.",
                ),
                io.Boolean.Input(
                    "compile",
                    default=False,
                    advanced=True,
                    tooltip="Compiles the model's blocks with torch.compile. The first edit takes minutes longer, "
                    "later ones are faster. A second size, and another number of references, compile again (measured: "
                    "11.6 s and 3.4 s). Needs Triton; the whole model must fit into memory.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="Kontext, for Kontext Sample or any stock sampler."),
                io.String.Output(
                    display_name="info", tooltip="The file's format and scales, bytes, how it is computed."
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, file: str, **_: Any) -> Any:
        return files.state("diffusion_models", file)

    @classmethod
    def execute(cls, file: str, compute: str, compile: bool) -> io.NodeOutput:
        from . import work as edits

        loaded = edits.load(file, compute, compiled=compile)
        return io.NodeOutput(loaded.model, loaded.description, ui=ui.PreviewText(loaded.description))


class KontextLoRA(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KontextLoRA",
            display_name="Kontext LoRA",
            category=inputs.CATEGORY,
            description="Puts a LoRA on Kontext, beside the FP8 weights, so that none of it is rounded away. Says what "
            "a file is if it does not fit.",
            search_aliases=["lora loader", "load lora", "kontext lora"],
            inputs=[
                io.Model.Input("model", tooltip="From Load Kontext (FP8). Several LoRA can be chained."),
                io.Combo.Input(
                    "file", options=files.names("loras"), tooltip="A LoRA for FLUX.1 in models/loras, of any kind."
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-10.0,
                    max=10.0,
                    step=0.05,
                    round=0.001,
                    tooltip="How much of it: 1 as it was trained, 0 not at all, below 0 the opposite.",
                ),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="Kontext with the LoRA.")],
        )

    @classmethod
    def fingerprint_inputs(cls, file: str, **_: Any) -> Any:
        return files.state("loras", file)

    @classmethod
    def execute(cls, model: Any, file: str, strength: float) -> io.NodeOutput:
        from . import work as edits

        return io.NodeOutput(edits.with_lora(model, file, strength))


class KontextSample(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KontextSample",
            display_name="Kontext Sample (FP8)",
            category=inputs.CATEGORY,
            description="Samples an edit from one or more reference pictures, on the schedule Kontext was trained for.",
            search_aliases=["ksampler", "flux kontext sampler", "reference latent", "multi reference"],
            inputs=[
                io.Model.Input("model", tooltip="From Load Kontext (FP8), or any FLUX.1 Kontext MODEL."),
                io.Conditioning.Input("positive", tooltip="What to change: the encoded prompt."),
                io.Autogrow.Input(
                    "references",
                    template=io.Autogrow.TemplatePrefix(
                        io.Latent.Input(
                            "reference", tooltip="A picture to edit or to take from, encoded by FLUX's VAE."
                        ),
                        prefix="reference_",
                        min=1,
                        max=8,
                    ),
                    tooltip="The pictures to edit or to take from, encoded by FLUX's VAE.",
                ),
                io.Int.Input(
                    "width",
                    default=1024,
                    min=16,
                    max=_LARGEST_SIDE,
                    step=16,
                    tooltip="The width of the result in pixels; take it from Kontext Prepare.",
                ),
                io.Int.Input(
                    "height",
                    default=1024,
                    min=16,
                    max=_LARGEST_SIDE,
                    step=16,
                    tooltip="The height of the result in pixels; take it from Kontext Prepare.",
                ),
                inputs.widget(replace(STEPS, bounds=(1, 50), tooltip="Sampling steps. Fewer are faster and rougher.")),
                inputs.widget(GUIDANCE),
                inputs.widget(SEED),
                io.Conditioning.Input("negative", optional=True, tooltip="What to avoid. Used where cfg is not 1."),
                io.Float.Input(
                    "cfg",
                    default=1.0,
                    min=0.0,
                    max=20.0,
                    step=0.1,
                    round=0.01,
                    optional=True,
                    tooltip="How strongly to avoid the negative prompt. 1 is off; anything else takes twice the time.",
                ),
            ],
            outputs=[io.Latent.Output(display_name="latent", tooltip="The edit, for VAE Decode.")],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        positive: Any,
        references: dict[str, Any],
        width: int,
        height: int,
        steps: int,
        guidance: float,
        seed: int,
        negative: Any = None,
        cfg: float = 1.0,
    ) -> io.NodeOutput:
        from . import work as edits

        latents = edits.latents(references)
        sampled = edits.sample(model, positive, negative, cfg, latents, width, height, steps, guidance, seed)
        return io.NodeOutput({"samples": sampled})


class KontextEditLocal(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KontextEditLocal",
            display_name="Kontext Edit (Local FP8)",
            category=inputs.CATEGORY,
            description="Edits pictures with FLUX.1 Kontext [dev] on this machine: every picture of a batch by itself, "
            "given back at its own size unless aspect_ratio asks for another shape. Has the main widgets of Kontext "
            "Edit (Oxen), in the same order.",
            search_aliases=inputs.edit_aliases("local edit"),
            inputs=[
                io.Model.Input("model", tooltip="From Load Kontext (FP8)."),
                io.Clip.Input(
                    "clip", tooltip="FLUX's text encoders: Load CLIP (Dual) with clip_l and t5xxl, type flux."
                ),
                io.Vae.Input("vae", tooltip="FLUX's VAE: Load VAE with ae.safetensors."),
                *inputs.edit_inputs(EDIT),
                inputs.optional(inputs.variations_input()),
                inputs.keep_input(),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The edited pictures, in order."),
                io.String.Output(
                    display_name="info", tooltip="JSON: for each edit its picture, seed, sizes and seconds."
                ),
                inputs.raw_output(),
            ],
        )

    @classmethod
    def validate_inputs(cls, prompt: str | None = None) -> bool | str:
        return inputs.prompt_is_usable(prompt)

    @classmethod
    def execute(cls, model: Any, clip: Any, vae: Any, image: torch.Tensor, **widgets: Any) -> io.NodeOutput:
        from . import work as edits

        edited = edits.edit(model, clip, vae, image, **widgets)
        says = None if edited.says is None else ui.PreviewText(edited.says)
        return io.NodeOutput(edited.image, edited.info, edited.raw, ui=says)
