"""What the fields of the models do, in words for an artist. A model's file says only what is its own."""

from __future__ import annotations

from dataclasses import dataclass

from ....editing.words import GUIDANCE, PROMPT, STEPS

# Of every text that a model takes, where it says nothing of its length.
MOST_CHARACTERS = int(PROMPT.bounds[1])


@dataclass(frozen=True)
class Words:
    """tooltip: what a field does. wire: the service's name where it is another. advanced: folded away."""

    tooltip: str
    wire: str = ""
    advanced: bool = False


def folded(tooltip: str) -> Words:
    return Words(tooltip, advanced=True)


WORDS = {
    "prompt": Words(PROMPT.tooltip),
    "aspect_ratio": Words("The shape of the result."),
    "resolution": Words("How large the result is. Larger ones often cost more."),
    "size": Words("How large the result is."),
    "scale": Words("How many times the picture's own width and height the result has."),
    "quality": Words("How carefully it is made. Higher costs more and takes longer."),
    "steps": Words(STEPS.tooltip.split(",")[0] + ". Fewer are faster and rougher.", STEPS.wire),
    "guidance": Words("How closely the prompt is followed.", GUIDANCE.wire),
    "seed": Words(
        "Picture 1 gets this seed, picture 2 the next, and so on. The same seed with the same inputs is the same "
        "request, and is not paid again. Seeds above 2147483647 are reduced modulo 2^31 for the service."
    ),
    "creativity": Words("How much the model adds of its own; little stays close to the picture or the prompt."),
    "strength": Words("How strongly the pictures steer the style; below 0 the result is pushed away from it."),
    "enhancement_strength": Words("How strongly the picture is enhanced."),
    "enhance_model": Words("Which kind of picture it is tuned for."),
    "texture": Words("How much texture is brought out, 1 to 5."),
    "sharpen": Words("How much is sharpened, 0 to 1."),
    "denoise": Words("How much noise is taken out, 0 to 1."),
    "apply_mask": Words("On, what was found is cut out of the picture; off, its mask comes back."),
    "background": Words("Whether the background is opaque. transparent needs png or webp."),
    "negative_prompt": folded("What must not be in the picture. Empty sends none."),
    "thinking_level": folded("How much the model reasons before it paints. high takes longer."),
    "enable_thinking": folded("Reasons about the prompt before it paints: better on long prompts, and slower."),
    "enable_prompt_expansion": folded("The model rewrites the prompt with more detail. Off keeps to your words."),
    "autoprompt": folded("The model describes the picture itself where there is no prompt."),
    "google_search": folded("Looks things up on the web first, for places, products and events that are real."),
    "enable_web_search": folded("Looks things up on the web first, for places, products and events that are real."),
    "grounding": folded("Looks things up on the web first, for places, products and events that are real. Slower."),
    "watermark": folded("Puts a visible watermark onto the result."),
    "output_format": folded("The file format of the result."),
    "output_quality": folded("Quality of the result's file."),
    "disable_safety_checker": folded("Asks the service to leave its safety checker out."),
    "safety_tolerance": folded("How much its safety filter lets pass; the lowest is the strictest."),
    "moderation": folded("How strictly prompts and results are moderated; low is the less strict."),
}


def words(name: str) -> Words:
    """What is known of a field; for one that nobody has described its name, folded away."""
    known = WORDS.get(name)
    return folded(f"The model's own setting {name}.") if known is None else known
