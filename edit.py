"""Edits one picture from local files, without ComfyUI: python -m kontext_bridge.edit PICTURE "prompt" -o OUT"""

from __future__ import annotations

import argparse
import logging
import math
import os
import sys
import tempfile
import time
import traceback
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from .commands.console import is_terminal, open_console, parsed, say, tell, typed
from .commands.named import WrongName, in_words, path_of, shown, source, target
from .commands.written import free_names, write_new, write_whole
from .imaging.canvas import at_its_scale, pick_size, prepare, restore
from .imaging.codec import DecodedImage, decode, encode, to_tensors
from .imaging.errors import ImageError, ImageTooLarge
from .imaging.formats import ImageFormat
from .imaging.keep.switch import keep_edits
from .imaging.pixels import to_uint8, with_alpha
from .imaging.png import with_text
from .kontext.checkpoint.layers import Size
from .kontext.checkpoint.lora import Lora, read_lora
from .kontext.checkpoint.reading import read_checkpoint
from .kontext.demo.shipped import demo_files, has_words
from .kontext.edit import LatentEdit
from .kontext.errors import BadRequest, KontextError
from .kontext.fast.asked import asked
from .kontext.fast.wishes import Wishes
from .kontext.fp8.compute import Compute
from .kontext.fp8.failures import first_line, is_out_of_memory
from .kontext.standalone.fast_sampler import sampled
from .kontext.standalone.sampler import Step, sample
from .kontext.standalone.text import encode_prompts, encode_words
from .kontext.standalone.tiny import write_tiny
from .kontext.standalone.vae import Autoencoder
from .kontext.standalone.workshop import dtype_on, mounted, usable_device

logger = logging.getLogger(__name__)

_FORMATS = {
    ".png": ImageFormat.PNG,
    ".webp": ImageFormat.WEBP_LOSSLESS,
    ".jpg": ImageFormat.JPEG,
    ".jpeg": ImageFormat.JPEG,
}
_MATCH = "match_input_image"
# What the name of the edit as it came ends in, where what is kept of it has the name that was asked for.
_RAW = "_raw"
# The tiny model's pictures are noise whatever their size.
_TINY_MEGAPIXELS = 0.02
# Kontext was made for one megapixel; far from it pictures fall apart, and no side may pass the model's 4096.
_MEGAPIXELS = (0.0005, 8.0)
_MAX_STEPS = 1000
_LONGEST_RATIO = 40


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; gives its exit status, 1 with a line on stderr for anything the user can mend."""
    open_console()
    options = parsed(_parser(), arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    # The libraries' own bars would come between this command's.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        options.prompt = typed(options.prompt)
        options.negative_prompt = options.negative_prompt and typed(options.negative_prompt)
        _check(options)
        if options.demo:
            demo = demo_files()
            _edit(options, demo.transformer, demo.text, demo.vae)
            return 0
        if not options.tiny:
            _edit(options, options.model, options.text_encoders, options.vae)
            return 0
        logger.warning("With --tiny the model is a random one, and the result is noise.")
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            _edit_tiny(options, Path(folder))
    except OSError as error:
        say(in_words(error), sys.stderr)
        return 1
    except (KontextError, ImageError, WrongName) as error:
        say(str(error), sys.stderr)
        return 1
    except (RuntimeError, MemoryError) as error:
        if not (isinstance(error, MemoryError) or is_out_of_memory(error)):
            raise
        say(
            f"There is too little memory for this edit: {first_line(error)}. Close other programs, or choose fewer "
            "--megapixels or --device cpu.",
            sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        written = f"the edit as it came is {options.raw}" if options.made else "nothing was written"
        sys.stderr.write(f"\nStopped; {written}.\n")
        return 130
    return 0


def _edit_tiny(options: argparse.Namespace, folder: Path) -> None:
    model = write_tiny(folder)
    options.megapixels = min(options.megapixels or _TINY_MEGAPIXELS, _TINY_MEGAPIXELS)
    try:
        _edit(options, model, folder, folder / "vae")
    except BaseException as error:
        # The frames hold the files open, which Windows does not remove: that would take this error's place.
        traceback.clear_frames(error.__traceback__)
        raise


def why_no_demo() -> str | None:
    """Why --demo cannot be had, in a sentence or two; None where its files are there."""
    try:
        demo_files()
    except KontextError as error:
        return str(error)
    return None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m kontext_bridge.edit", description=__doc__)
    parser.add_argument("picture", help="PNG, JPEG, WebP or GIF")
    parser.add_argument("prompt", help="what to change, as a sentence")
    parser.add_argument("-o", "--out", required=True, help=f"where to write: {', '.join(_FORMATS)}")
    parser.add_argument("--model", help="FLUX.1 Kontext: a .safetensors file or a diffusers folder")
    parser.add_argument(
        "--text-encoders", help="folder with text_encoder, text_encoder_2, tokenizer(_2); or the demo model's words"
    )
    parser.add_argument("--vae", help="ae.safetensors, or a diffusers folder")
    parser.add_argument(
        "--demo",
        action="store_true",
        help="the demo model that comes with the pack instead: it edits drawn scenes of about 128x128 pixels, and is a "
        "demonstration, not Kontext",
    )
    parser.add_argument(
        "--tiny", action="store_true", help="a tiny random model instead, to try the command: the result is noise"
    )
    parser.add_argument("--lora", action="append", default=[], metavar="FILE[=STRENGTH]", help="may be repeated")
    parser.add_argument(
        "--steps", type=int, default=28, help="sampling steps (default: 28); fewer are faster and rougher"
    )
    parser.add_argument("--guidance", type=float, default=2.5, help="how closely to follow the prompt (default: 2.5)")
    parser.add_argument(
        "--seed", type=int, default=0, help="of the noise it starts from (default: 0); another gives another picture"
    )
    parser.add_argument("--aspect-ratio", default=_MATCH, help="such as 16:9 (default: the picture's own)")
    parser.add_argument("--megapixels", type=float, help="size to sample at (default: what the model was made for)")
    parser.add_argument("--negative-prompt", help="what to move away from; needs --true-cfg above 1")
    parser.add_argument("--true-cfg", type=float, default=1.0, help="how strongly; every step takes twice as long")
    parser.add_argument(
        "--keep",
        action="store_true",
        help="change only what was edited: OUT has the picture's own pixels everywhere else, and the edit as it came "
        f"is written beside it, with {_RAW} at the end of its name; where a file has that name, _2 and so on follow",
    )
    parser.add_argument(
        "--fast",
        action="append",
        default=[],
        metavar="OPTION",
        help="leave work out, which changes the edit a little; may be repeated: cache=0.1, reference=2, mask=FILE "
        "(white is to be edited) with settled=0.1, and measure, which makes the exact edit too and says how far apart "
        "they are",
    )
    parser.add_argument(
        "--device",
        default="cuda" if torch.cuda.is_available() else "cpu",
        help="cuda, cuda:1, cpu ... (default here: %(default)s)",
    )
    parser.add_argument(
        "--compute",
        choices=[c.value for c in Compute],
        default=Compute.AUTO.value,
        help="how FP8 weights are multiplied. auto (default): fp8 where the device can, else storage; fp8: in FP8, "
        "fastest; storage: FP8 only saves memory, and products are exact; reference: every weight written out in full "
        "first, slowest, to compare with",
    )
    # raw: the file for the edit as it came, where there is one beside OUT; made: whether it was written
    parser.set_defaults(raw=None, made=False)
    return parser


def _check(options: argparse.Namespace) -> None:
    """Raises BadRequest for what can be known to be wrong before anything is computed."""
    companions = {"--text-encoders": options.text_encoders, "--vae": options.vae}
    given = [name for name, path in companions.items() if path is not None]
    if options.model is None and given:
        raise BadRequest(f"{' and '.join(given)} {'needs' if len(given) == 1 else 'need'} --model.")
    if options.model is not None and len(given) < len(companions):
        raise BadRequest(f"--model also needs {' and '.join(companions)}.")
    instead = [name for name, given in (("--tiny", options.tiny), ("--demo", options.demo)) if given]
    if instead and options.model is not None:
        raise BadRequest(f"{instead[0]} is instead of --model: give one of the two.")
    if len(instead) > 1:
        raise BadRequest("--tiny and --demo are two models: give one of the two.")
    _check_words(options)
    _check_numbers(options)
    _check_files(options)
    if options.model is None and not instead:
        raise BadRequest(
            "No model is named: give --model, --text-encoders and --vae, or --tiny to try the command with a random "
            "model, whose pictures are noise, or --demo for the small model that comes with the pack."
        )
    options.loras = [_lora(text) for text in options.lora]
    options.fast = asked(options.fast)
    # The mask is not looked at yet; the numbers are checked as they will be used.
    Wishes(options.fast.cache, smaller=options.fast.reference)
    if options.fast.mask is not None:
        options.fast = replace(options.fast, mask=str(source(options.fast.mask, "--fast mask", "mask file")))
        if options.aspect_ratio != _MATCH:
            raise BadRequest("--fast mask is for an edit of the picture's own shape: leave --aspect-ratio out.")


def _check_words(options: argparse.Namespace) -> None:
    if not options.prompt.strip():
        raise BadRequest("The prompt is empty: say in a sentence what to change.")
    if options.negative_prompt is not None and not options.negative_prompt.strip():
        raise BadRequest("The negative prompt is empty: say what to move away from, or leave it out.")
    if "\0" in options.prompt + (options.negative_prompt or ""):
        raise BadRequest("The prompt has a NUL character in it. Type it anew.")
    for text in (options.prompt, options.negative_prompt or ""):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise BadRequest("The prompt has characters that are no text. Type it anew.") from error
    if (options.negative_prompt is None) != (options.true_cfg == 1):
        raise BadRequest("--negative-prompt and --true-cfg (above 1) belong together: give both or neither.")


def _check_numbers(options: argparse.Namespace) -> None:
    least, most = _MEGAPIXELS
    # Whatever is no number fails every comparison.
    if options.megapixels is not None and not least <= options.megapixels <= most:
        raise BadRequest(
            f"--megapixels is {options.megapixels}; it must be from {least} to {most}. 1 is what it is for."
        )
    if options.steps > _MAX_STEPS:
        raise BadRequest(f"--steps is {options.steps}; it must be at most {_MAX_STEPS}.")
    # The size is not known yet; the rest is checked as it will be used.
    LatentEdit(16, 16, options.steps, options.guidance, options.seed, true_cfg=options.true_cfg)
    if len(options.aspect_ratio) > _LONGEST_RATIO:
        raise BadRequest("The aspect ratio is too long: use two numbers such as 16:9.")
    pick_size(options.aspect_ratio, 16, 16)


def _check_files(options: argparse.Namespace) -> None:
    options.out = path_of(options.out, "--out")
    if options.out.suffix.lower() not in _FORMATS:
        raise BadRequest(f"{shown(options.out.name)} ends in none of {', '.join(_FORMATS)}.")
    target(str(options.out), "--out")
    options.picture = source(options.picture, "PICTURE", "picture file")
    if options.keep:
        options.raw = options.out.with_stem(options.out.stem + _RAW)
        target(str(options.raw), "--keep")
        if options.raw.exists() and options.out.exists() and options.raw.samefile(options.out):
            raise BadRequest(
                f"{options.raw}, where --keep writes the edit as it came, is the same file as {options.out}. Name "
                "another file."
            )
    for out in (options.out, options.raw):
        if out is not None and out.exists() and out.samefile(options.picture):
            raise BadRequest(f"{out} is the picture itself, which the edit would replace. Name another file.")
    if options.keep:
        options.raw = next(free_names(options.raw))
        target(str(options.raw), "--keep")
    _check_models(options)


def _check_models(options: argparse.Namespace) -> None:
    options.model, options.text_encoders, options.vae = (
        None if text is None else _file_or_folder(text, name)
        for name, text in (
            ("--model", options.model),
            ("--text-encoders", options.text_encoders),
            ("--vae", options.vae),
        )
    )
    encoders = options.text_encoders
    if encoders is not None and not encoders.is_dir() and not has_words(encoders):
        raise BadRequest(
            f"{shown(encoders)} is a file; --text-encoders takes the folder that holds text_encoder, text_encoder_2, "
            "tokenizer and tokenizer_2."
        )


def _file_or_folder(text: str, option: str) -> Path:
    path = path_of(text, option)
    # os.path, unlike Path, answers for what may not be looked at as for what is not there
    if not os.path.exists(path):  # noqa: PTH110
        raise BadRequest(f"There is no file or folder at {shown(path)}, which {option} names.")
    return path


def _edit(options: argparse.Namespace, model: Path, text_encoders: Path, vae: Path) -> None:
    device = usable_device(options.device)
    dtype = dtype_on(device)
    picture = to_tensors([_decoded(options.picture)])
    image = with_alpha(picture.image, picture.mask)
    output_format = _FORMATS[options.out.suffix.lower()]
    if output_format is ImageFormat.JPEG and image.shape[3] == 4 and (options.aspect_ratio == _MATCH or options.keep):
        raise BadRequest(f"{options.picture.name} has transparency, and JPEG cannot hold it. Write a .png or .webp.")
    checkpoint = read_checkpoint(model)
    height, width = image.shape[1:3]
    megapixels = checkpoint.purpose.megapixels if options.megapixels is None else options.megapixels
    canvas = prepare(image, size=pick_size(_MATCH, width, height, megapixels))
    wishes = _wishes(options, image, (canvas.prepared.shape[2], canvas.prepared.shape[1]))
    across, down = pick_size(options.aspect_ratio, width, height, megapixels)
    edit = LatentEdit(across, down, options.steps, options.guidance, options.seed, true_cfg=options.true_cfg)
    if checkpoint.purpose.is_far_exceeded(across, down):
        raise BadRequest(
            f"The {checkpoint.purpose.called} edits pictures of about {checkpoint.purpose.megapixels:.2g} megapixels, "
            f"and of {across}x{down} it would make noise. Leave --megapixels out."
        )
    loras = _read_loras(options.loras, checkpoint.size)

    prompts = [options.prompt] if options.negative_prompt is None else [options.prompt, options.negative_prompt]
    if text_encoders.is_file():
        encoded = encode_words(text_encoders, prompts)
    else:
        encoded = encode_prompts(text_encoders, prompts, device, dtype)
    autoencoder = Autoencoder(vae, device, dtype)
    autoencoder.check(checkpoint.purpose)
    reference = autoencoder.encode(canvas.prepared)
    transformer = mounted(checkpoint, dtype=dtype, device=device, compute=Compute(options.compute), loras=loras)
    negative = encoded[1] if len(encoded) > 1 else None
    take = partial(sample, transformer, edit, encoded[0], [reference], negative=negative, on_step=_Bar())
    latent, lines = sampled(take, wishes, autoencoder.decode if options.fast.measure else None)
    if lines:
        tell("\n".join(lines))
    del transformer, take
    edited = autoencoder.decode(latent)
    at_scale = edited
    if options.aspect_ratio == _MATCH:
        edited = restore(edited, canvas)
        at_scale = at_its_scale(edited, canvas)
    _write(options, image, edited, at_scale, output_format, checkpoint.purpose.called)


def _wishes(options: argparse.Namespace, image: torch.Tensor, size: tuple[int, int]) -> Wishes:
    """What --fast asks for; the mask lies on its picture as that lies in what is sampled, of `size`."""
    fast, mask = options.fast, None
    if fast.mask is not None:
        drawn = to_tensors([_decoded(Path(fast.mask))]).image
        if drawn.shape[1:3] != image.shape[1:3]:
            raise BadRequest(f"The mask {shown(fast.mask)} must be as large as the picture.")
        mask = prepare(drawn, size=size).prepared.mean(-1)
    return Wishes(fast.cache, fast.settled if mask is not None else 0.0, mask, fast.reference)


def _write(
    options: argparse.Namespace,
    image: torch.Tensor,
    edited: torch.Tensor,
    at_scale: torch.Tensor,
    output_format: ImageFormat,
    called: str | None,
) -> None:
    """Write the edit; with --keep it is written first as it came, whatever then becomes of what is kept of it.

    at_scale: the edit as it is compared with its source. called: the model that made it, where that is no Kontext; a
    PNG says so.
    """
    raw = _encoded(edited[0], output_format, called)
    if options.raw is None:
        _write_alone(options.out, raw)
        return
    options.raw = write_new(options.raw, raw)
    options.made = True
    kept = keep_edits([image[0]], [at_scale[0]], edited, check=lambda: None)
    try:
        data = raw if kept.image is edited else _encoded(kept.image[0], output_format, called)
        write_whole(options.out, data)
    except (OSError, MemoryError, ImageError) as error:
        why = in_words(error) if isinstance(error, OSError) else str(error) or "There is too little memory left."
        raise ImageError(
            f"{why} {shown(options.out)} was not written. The edit as it came is {options.raw}: python -m "
            "kontext_bridge.keep lays it back onto its picture, once that is mended."
        ) from error
    tell(f"{kept.says}\nThe edit as it came: {options.raw}")


def _write_alone(path: Path, data: bytes) -> None:
    """Write the edit, under another name where this one is refused; raises ImageError then."""
    try:
        write_whole(path, data)
    except PermissionError as error:
        # Windows lets a program that shows an older edit keep others from its file.
        instead = write_new(path, data)
        raise ImageError(f"{in_words(error)} Another program may have it open. The edit is {instead}.") from error


def _encoded(picture: torch.Tensor, output_format: ImageFormat, called: str | None) -> bytes:
    data = encode(to_uint8(picture), output_format).data
    return data if called is None else with_text(data, "Software", f"Kontext Bridge, {called}")


def _decoded(path: Path) -> DecodedImage:
    try:
        return decode(path.read_bytes())
    except ImageTooLarge as error:
        raise ImageTooLarge(f"{path.name}: {error} Scale it down first.") from None
    except ImageError as error:
        raise ImageError(f"{path.name}: {error}") from None


def _lora(text: str) -> tuple[Path, float]:
    """The file and strength in FILE or FILE=STRENGTH, where the file's own name may hold an equals sign."""
    file, separator, number = text.rpartition("=")
    # os.path, unlike Path, has an answer for a name that is none
    if not separator or os.path.isfile(text):  # noqa: PTH113
        return _existing(text), 1.0
    try:
        strength = float(number)
    except ValueError as error:
        if Path(text).suffix == ".safetensors":
            return _existing(text), 1.0
        raise BadRequest(f"--lora takes FILE or FILE=STRENGTH, and {number!r} is no number.") from error
    if not math.isfinite(strength):
        raise BadRequest(f"The strength of the LoRA {file} is {number}; it must be a number.")
    return _existing(file), strength


def _existing(text: str) -> Path:
    return source(text, "--lora")


def _read_loras(asked: list[tuple[Path, float]], size: Size) -> list[tuple[Lora, float]]:
    """The LoRA files, each under a name of its own: diffusers calls all of them pytorch_lora_weights."""
    files = [file.resolve() for file, _ in asked]
    for file in sorted({file for file in files if files.count(file) > 1}):
        total = sum(strength for (_, strength), one in zip(asked, files, strict=True) if one == file)
        logger.warning("%s is given %d times; its strengths add up to %g.", file, files.count(file), total)
    return [
        (replace(read_lora(file, size), name=f"{number} {file.stem}"), strength)
        for number, (file, strength) in enumerate(asked, start=1)
    ]


class _Bar:
    """A progress bar on stderr: steps done, seconds a step."""

    def __init__(self) -> None:
        self._started = self._ended = time.monotonic()

    def __call__(self, step: Step) -> None:
        if step.number == 1:
            # A second run of the same edit, where two are compared, begins where the first one ended.
            self._started = self._ended
        done = 30 * step.number // step.steps
        pace = (time.monotonic() - self._started) / step.number
        end = "\n" if step.number == step.steps or not is_terminal(sys.stderr) else ""
        bar = "#" * done + "." * (30 - done)
        self._ended = time.monotonic()
        say(f"\r[{bar}] {step.number}/{step.steps}, {pace:.2f} s a step", sys.stderr, end)


if __name__ == "__main__":
    sys.exit(main())
