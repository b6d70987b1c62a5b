"""The headless command: a picture in, a picture out, and one line where there is none."""

import contextlib
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from drawn import pair
from full_disk import full_disk
from kontext_bridge import edit
from kontext_bridge.commands import written
from kontext_bridge.imaging.keep import switch
from kontext_bridge.imaging.keep.filters import blur
from kontext_bridge.imaging.pixels import to_uint8
from kontext_bridge.kontext.standalone import text
from kontext_bridge.kontext.standalone.tiny import write_tiny
from PIL import Image
from safetensors.torch import load_file, save_file


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    write_tiny(folder)
    return folder


def picture(path, width, height):
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def run(models, tmp_path):
    """Runs the command on a picture; gives its status and the file that it was to write."""

    def command(*options, size=(80, 48), model="tiny_kontext.safetensors", out="out.png", source=None):
        source = source or picture(tmp_path / "in.png", *size)
        files = ["--model", str(models / model), "--text-encoders", str(models), "--vae", str(models / "vae")]
        common = [str(source), "make it blue", "-o", str(tmp_path / out), "--steps", "2", "--megapixels", "0.004"]
        return edit.main([*common, *files, *options]), tmp_path / out

    return command


def pixels(path):
    with Image.open(path) as opened:
        return np.asarray(opened.convert("RGB")).astype(int)


def size_of(path):
    with Image.open(path) as opened:
        return opened.size


def test_with_a_tiny_random_model_the_command_says_that_the_result_is_noise(tmp_path):
    source, out = picture(tmp_path / "in.png", 70, 50), tmp_path / "out.png"
    command = [sys.executable, "-m", "kontext_bridge.edit", str(source), "make it blue", "-o", str(out), "--steps", "2"]
    done = subprocess.run([*command, "--tiny"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "the result is noise" in done.stderr and "2/2" in done.stderr
    assert size_of(out) == (70, 50)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells which files are mapped")
def test_a_tiny_model_that_fails_is_not_open_any_more_when_its_files_are_removed(tmp_path, monkeypatch, capsys):
    class Folder(tempfile.TemporaryDirectory):
        def cleanup(self):
            # Windows removes no open file, and what it says of that would take the place of the error.
            if self.name in Path("/proc/self/maps").read_text():
                raise PermissionError(13, "The process cannot access the file", self.name)
            super().cleanup()

    monkeypatch.setattr(tempfile, "TemporaryDirectory", Folder)
    source, out = picture(tmp_path / "in.png", 32, 32), tmp_path / "out.png"
    options = [str(source), "make it blue", "-o", str(out), "--tiny", "--lora", str(source)]
    assert edit.main(options) == 1
    assert "in.png is not a safetensors file" in capsys.readouterr().err


def test_without_a_model_nothing_is_made_and_the_command_says_what_to_give(tmp_path, capsys, nothing_computed):
    source, out = picture(tmp_path / "in.png", 70, 50), tmp_path / "out.png"
    assert edit.main([str(source), "make it blue", "-o", str(out)]) == 1
    told = capsys.readouterr().err.strip()
    assert "give --model, --text-encoders and --vae, or --tiny" in told and told.count("\n") == 0
    assert not out.exists()


def test_a_model_and_a_tiny_one_are_not_both_asked_for(run, capsys, nothing_computed):
    status, out = run("--tiny")
    assert status == 1 and not out.exists()
    assert "instead of --model" in capsys.readouterr().err


def test_the_edit_has_the_pictures_size_and_depends_on_the_seed_alone(run):
    first = pixels(run("--seed", "1")[1])
    again = pixels(run("--seed", "1")[1])
    other = pixels(run("--seed", "2")[1])
    assert first.shape == (48, 80, 3)
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_the_picture_the_prompt_and_the_guidance_matter(run, models, tmp_path):
    plain = pixels(run()[1])
    assert not np.array_equal(plain, pixels(run("--guidance", "8")[1]))
    assert not np.array_equal(plain, pixels(run("--negative-prompt", "red", "--true-cfg", "4")[1]))


@pytest.fixture
def transparent(tmp_path):
    """A picture with a transparent half."""
    path = tmp_path / "transparent.png"
    with Image.open(picture(tmp_path / "opaque.png", 80, 48)) as opened:
        rgba = opened.convert("RGBA")
    rgba.paste((9, 9, 9, 0), (0, 0, 40, 48))
    rgba.save(path)
    return path


def test_a_pictures_transparency_is_kept(run, transparent):
    out = run("--steps", "1", source=transparent)[1]
    with Image.open(out) as opened, Image.open(transparent) as given:
        assert opened.mode == "RGBA" and np.array_equal(opened.getchannel("A"), given.getchannel("A"))


def test_transparency_that_the_format_cannot_hold_is_refused_before_anything_is_computed(run, transparent, capsys):
    status, out = run(source=transparent, out="out.jpg")
    told = capsys.readouterr().err
    assert status == 1 and not out.exists()
    assert "JPEG cannot hold" in told and "1/2" not in told
    assert run("--aspect-ratio", "1:1", source=transparent, out="out.jpg")[0] == 0, "another shape has no alpha"


@pytest.mark.parametrize("size", [(8, 8), (400, 16), (17, 33)])
def test_odd_sizes_come_back_as_they_went_in(run, size):
    status, out = run(size=size)
    assert status == 0 and size_of(out) == size


def test_another_aspect_ratio_gives_a_picture_of_that_shape(run):
    status, out = run("--aspect-ratio", "2:1")
    width, height = size_of(out)
    assert status == 0 and width == 2 * height and width % 16 == 0


def test_a_lora_changes_the_picture_by_its_strength(run, tmp_path):
    g = torch.Generator().manual_seed(0)
    lora = tmp_path / "style.safetensors"
    save_file(
        {
            "diffusion_model.single_blocks.0.linear1.lora_A.weight": torch.randn(4, 128, generator=g),
            "diffusion_model.single_blocks.0.linear1.lora_B.weight": torch.randn(896, 4, generator=g),
        },
        lora,
    )
    plain, off = pixels(run()[1]), pixels(run("--lora", f"{lora}=0")[1])
    on = pixels(run("--lora", str(lora))[1])
    assert np.array_equal(plain, off) and not np.array_equal(plain, on)


def test_an_edit_that_leaves_work_out_says_what_and_how_far_it_strayed(run, tmp_path, capsys):
    mask = np.zeros((48, 80), np.uint8)
    mask[:16, :16] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    exact = pixels(run()[1])
    options = ["--fast", "cache=0.9", "--fast", "reference", "--fast", f"mask={tmp_path / 'mask.png'}", "--fast"]
    status, out = run(*options, "settled=0.9", "--fast", "measure", "--steps", "4")
    told = capsys.readouterr().out
    assert status == 0 and size_of(out) == (80, 48) and not np.array_equal(pixels(out), exact)
    for words in (
        "calls ended after their first block",
        "tokens left out",
        "instead of",
        "time saved",
        "latent ",
        " apart (",
        " dB",
    ):
        assert words in told
    assert run("--fast", "cache=0.9")[0] == 0 and "not measured" in capsys.readouterr().out
    assert run()[0] == 0 and capsys.readouterr().out == ""


def test_a_mask_of_another_size_than_the_picture_is_said(run, tmp_path, capsys):
    picture(tmp_path / "mask.png", 40, 40)
    assert run("--fast", f"mask={tmp_path / 'mask.png'}")[0] == 1
    assert "must be as large as the picture" in capsys.readouterr().err
    assert run("--fast", f"mask={tmp_path / 'mask.png'}", "--aspect-ratio", "1:1")[0] == 1
    assert "leave --aspect-ratio out" in capsys.readouterr().err


@pytest.fixture
def nothing_computed(monkeypatch):
    def compute(*_, **__):
        raise AssertionError("it was computed")

    monkeypatch.setattr(edit, "encode_prompts", compute)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--steps", "0"], "at least one step"),
        (["--aspect-ratio", "wide"], "'wide' is not known"),
        (["--device", "abacus"], "'abacus' cannot be used"),
        (["--lora", "x.safetensors=much"], "'much' is no number"),
        (["--lora", "absent.safetensors"], r"no file at absent\.safetensors"),
        (["--lora", "my=absent.safetensors"], r"no file at my=absent\.safetensors"),
        (["--lora", "absent.safetensors=0.5"], r"no file at absent\.safetensors"),
        (["--lora", ""], "no file"),
        (["--fast", "cash"], "does not know 'cash'"),
        (["--fast", "cache=1"], r"cache is 1\.0"),
        (["--fast", "reference=9"], r"reference is 9\.0"),
        (["--fast", "mask=absent.png"], r"no mask file at absent\.png"),
        (["--lora", "a\0b"], "NUL"),
        (["--megapixels", "nan"], "--megapixels is nan"),
        (["--megapixels", "inf"], "--megapixels is inf"),
        (["--megapixels", "100000"], "from 0.0005 to 8"),
        (["--megapixels", "0"], "from 0.0005 to 8"),
        (["--megapixels=-1"], "from 0.0005 to 8"),
        (["--steps", "1" * 30], "at most 1000"),
        (["--seed", "-1"], "seed is -1"),
        (["--seed", str(2**64)], "seed is"),
        (["--guidance", "nan"], "guidance is nan"),
        (["--guidance", "inf"], "guidance is inf"),
        (["--guidance=-1"], "guidance is -1"),
        (["--true-cfg", "nan", "--negative-prompt", "red"], "true CFG is nan"),
        (["--true-cfg", "inf", "--negative-prompt", "red"], "true CFG is inf"),
        (["--true-cfg", "2", "--negative-prompt", " "], "negative prompt is empty"),
        (["--aspect-ratio", "9" * 5000 + ":1"], "too long"),
        (["--aspect-ratio", "0:1"], "is not known"),
        (["--aspect-ratio", "1000:1"], "at most 4096"),
        (["--device", "meta"], "'meta' cannot be used"),
        (["--device", "cuda:77"], "'cuda:77' cannot be used"),
        (["--model", "absent.safetensors"], "which --model names"),
        (["--vae", "absent"], "which --vae names"),
        (["--text-encoders", "absent"], "which --text-encoders names"),
        (["--true-cfg", "3"], "belong together"),
        (["--negative-prompt", "red"], "belong together"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line_before_anything_is_computed(
    run, capsys, options, message, nothing_computed
):
    status, out = run(*options)
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert status == 1 and not out.exists()
    assert re.search(message, said)


LONG = "x" * 300 + ".png"


@pytest.mark.parametrize("option", ["--out", "--model", "--text-encoders", "--vae", "--lora"])
@pytest.mark.parametrize(
    ("name", "words"),
    [("", "is empty"), (" ", "is empty"), (LONG, "too long"), ("a\0.png", "NUL"), ("y/" * 2100 + "a.png", "too long")],
    ids=["empty", "blank", "long", "NUL", "long in all"],
)
def test_a_name_that_names_no_file_is_said_in_words(run, capsys, option, name, words, nothing_computed):
    assert run(option, name)[0] == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert words in said and option in said and "Errno" not in said and len(said) < 300


@pytest.mark.parametrize("name", ["", LONG, "a\0.png"])
def test_a_picture_without_a_usable_name_is_said_in_words(tmp_path, capsys, name, nothing_computed):
    assert edit.main([name, "blue", "-o", str(tmp_path / "out.png")]) == 1
    said = capsys.readouterr().err
    assert "PICTURE" in said and "Errno" not in said


def test_a_folder_in_place_of_a_file_and_a_file_in_place_of_a_folder_are_said(run, tmp_path, capsys, nothing_computed):
    assert run("--lora", str(tmp_path))[0] == 1 and "is a folder" in capsys.readouterr().err
    assert run("--text-encoders", str(tmp_path / "in.png"))[0] == 1
    assert "takes the folder" in capsys.readouterr().err


def test_a_picture_that_is_too_large_is_said_to_be_scaled_down(run, tmp_path, capsys, nothing_computed):
    Image.new("1", (9000, 9000)).save(tmp_path / "huge.png")
    assert run(source=tmp_path / "huge.png")[0] == 1
    assert re.search(r"huge\.png: .*Scale it down first\.", capsys.readouterr().err)


@pytest.mark.parametrize(
    "option",
    ["--steps", "--guidance", "--seed", "--megapixels", "--aspect-ratio", "--negative-prompt", "--lora", "--out"],
)
def test_two_dashes_as_a_value_are_refused_in_words(run, capsys, option, nothing_computed):
    with pytest.raises(SystemExit) as ended:
        run(f"{option}=--")
    assert ended.value.code == 2
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith("python -m kontext_bridge.edit: error: ")


def test_a_link_that_leads_nowhere_is_said_before_the_picture_is_made_and_lost(run, tmp_path, capsys, nothing_computed):
    (tmp_path / "out.png").symlink_to(tmp_path / "nodir" / "out.png")
    assert run()[0] == 1
    assert re.search(r"no folder .*nodir", capsys.readouterr().err)
    (tmp_path / "circle.png").symlink_to(tmp_path / "circle.png")
    assert run(out="circle.png")[0] == 1
    assert "circle" in capsys.readouterr().err


def test_a_folder_that_is_not_there_is_said_before_the_picture_is_made_and_lost(run, capsys, nothing_computed):
    assert run(out="nodir/out.png")[0] == 1
    assert re.search(r"no folder .*nodir", capsys.readouterr().err)


def test_a_place_that_cannot_be_written_is_said_before_anything_is_computed(
    run, tmp_path, capsys, nothing_computed, monkeypatch
):
    (tmp_path / "folder.png").mkdir()
    assert run(out="folder.png")[0] == 1
    assert "is a folder" in capsys.readouterr().err
    monkeypatch.setattr(edit.os, "access", lambda *_: False)  # a root user may write anywhere
    assert run()[0] == 1
    assert "cannot be written" in capsys.readouterr().err


def test_an_empty_prompt_is_refused_before_anything_is_computed(tmp_path, capsys, nothing_computed):
    source = picture(tmp_path / "in.png", 32, 32)
    assert edit.main([str(source), " \n", "-o", str(tmp_path / "o.png")]) == 1
    assert "prompt is empty" in capsys.readouterr().err


def test_a_jpeg_is_written_under_either_of_its_endings(run):
    for name in ("out.jpg", "out.jpeg"):
        status, out = run(out=name)
        with Image.open(out) as opened:
            assert status == 0 and opened.format == "JPEG"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--vae", "x"], "--vae needs --model"),
        (["--text-encoders", "x"], "--text-encoders needs --model"),
        (["--vae", "x", "--text-encoders", "y"], "--text-encoders and --vae need --model"),
    ],
)
def test_files_of_a_model_that_is_not_named_are_not_ignored(tmp_path, capsys, nothing_computed, options, message):
    source = picture(tmp_path / "in.png", 32, 32)
    assert edit.main([str(source), "x", "-o", str(tmp_path / "o.png"), *options]) == 1
    assert message in capsys.readouterr().err


def test_every_option_is_explained(capsys):
    with pytest.raises(SystemExit):
        edit.main(["--help"])
    told = " ".join(capsys.readouterr().out.split())
    for words in ("sampling steps", "follow the prompt", "another picture", "cuda", "auto (default)", "reference:"):
        assert words in told


def test_an_unknown_output_format_is_refused_before_anything_is_computed(run, capsys):
    status, out = run(out="out.tiff")
    assert status == 1 and not out.exists() and ".png" in capsys.readouterr().err


def test_a_model_without_its_companions_says_which_are_needed(models, tmp_path, capsys):
    source = picture(tmp_path / "in.png", 32, 32)
    model = str(models / "tiny_kontext.safetensors")
    assert edit.main([str(source), "x", "-o", str(tmp_path / "o.png"), "--model", model]) == 1
    assert "--text-encoders and --vae" in capsys.readouterr().err


def test_missing_text_encoders_are_named(run, capsys, tmp_path):
    status, _ = run("--text-encoders", str(tmp_path))
    assert status == 1
    assert "tokenizer, text_encoder, tokenizer_2, text_encoder_2" in capsys.readouterr().err


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory. Tried"), MemoryError()], ids=repr)
def test_memory_that_ends_where_it_was_not_reckoned_with_is_a_line_and_no_traceback(run, monkeypatch, capsys, error):
    def full(*_, **__):
        raise error

    monkeypatch.setattr(edit, "mounted", full)
    status, out = run()
    assert status == 1 and not out.exists()
    assert "too little memory for this edit" in (said := capsys.readouterr().err) and "Traceback" not in said
    error = RuntimeError("an odd one")
    with pytest.raises(RuntimeError, match="an odd one"):
        run()


@pytest.mark.parametrize("known", [True, False], ids=["known before", "found out"])
def test_a_text_encoder_that_a_small_card_has_no_room_for_runs_on_the_cpu(models, monkeypatch, caplog, known):
    cpu, card = torch.device("cpu"), torch.device("meta")
    real = torch.nn.Module.to

    def full(module, *where, **named):
        if card in where:
            assert not known, "it was asked for all the same"
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(module, *where, **named)

    monkeypatch.setattr(torch.nn.Module, "to", full)
    monkeypatch.setattr(text, "free_bytes", lambda device: 400_000_000 if known else None)
    for one, other in zip(
        text.encode_prompts(models, ["make it blue", "add snow"], card, torch.bfloat16),
        text.encode_prompts(models, ["make it blue", "add snow"], cpu, torch.float32),
        strict=True,
    ):
        assert torch.equal(one.text, other.text) and torch.equal(one.pooled, other.pooled)
    assert [record.args[0] for record in caplog.records] == ["text_encoder", "text_encoder_2"]


def test_a_damaged_model_file_is_said_to_be_downloaded_again(run, tmp_path, capsys):
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(bytes(1000))
    assert run("--model", str(bad))[0] == 1
    assert "Download it again" in capsys.readouterr().err


def test_a_file_that_is_no_picture_is_refused(run, tmp_path, capsys, models):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"not a picture")
    assert edit.main([str(bad), "x", "-o", str(tmp_path / "o.png")]) == 1
    assert not (tmp_path / "o.png").exists()


@pytest.mark.parametrize("part", ["encoder.conv_in.bias", "decoder.conv_in.bias"])
def test_a_damaged_vae_gives_an_error_and_never_a_black_picture(run, models, tmp_path, capsys, part):
    tensors = load_file(models / "vae" / "diffusion_pytorch_model.safetensors")
    tensors[part][0] = float("nan")
    damaged = tmp_path / "vae.safetensors"
    save_file(tensors, damaged)
    status, out = run("--vae", str(damaged))
    assert status == 1 and not out.exists()
    assert "NaN or infinity while" in capsys.readouterr().err


def style(path, seed=0, rank=4):
    g = torch.Generator().manual_seed(seed)
    path.parent.mkdir(exist_ok=True)
    save_file(
        {
            "diffusion_model.single_blocks.0.linear1.lora_A.weight": torch.randn(rank, 128, generator=g),
            "diffusion_model.single_blocks.0.linear1.lora_B.weight": torch.randn(896, rank, generator=g),
        },
        path,
    )
    return path


def test_of_two_loras_with_one_file_name_both_are_used(run, tmp_path):
    one, two = (style(tmp_path / f"{i}" / "pytorch_lora_weights.safetensors", i) for i in (1, 2))
    both = pixels(run("--lora", str(one), "--lora", str(two))[1])
    other_way = pixels(run("--lora", str(two), "--lora", str(one))[1])
    first, second = (pixels(run("--lora", str(path))[1]) for path in (one, two))
    assert not np.array_equal(both, second) and not np.array_equal(both, first)
    assert np.abs(both - other_way).max() <= 1


def test_a_lora_given_twice_adds_up_and_says_so(run, tmp_path, caplog):
    path = style(tmp_path / "a" / "style.safetensors")
    (tmp_path / "link.safetensors").symlink_to(path)
    twice = pixels(run("--lora", f"{path}=0.25", "--lora", f"{tmp_path / 'link.safetensors'}=0.5")[1])
    assert "given 2 times; its strengths add up to 0.75" in caplog.text
    assert np.abs(twice - pixels(run("--lora", f"{path}=0.75")[1])).max() <= 1


def test_a_lora_with_an_equals_sign_in_its_name_is_found(run, tmp_path):
    path = style(tmp_path / "a" / "my=style.safetensors")
    plain, off = pixels(run()[1]), pixels(run("--lora", f"{path}=0")[1])
    on = pixels(run("--lora", str(path))[1])
    assert np.array_equal(plain, off) and not np.array_equal(plain, on)


@pytest.mark.parametrize("strength", ["nan", "inf", "-inf"])
def test_a_strength_that_is_no_number_is_said_before_anything_is_computed(
    run, tmp_path, capsys, nothing_computed, strength
):
    path = style(tmp_path / "a" / "style.safetensors")
    assert run("--lora", f"{path}={strength}")[0] == 1
    assert f"is {strength}; it must be a number" in capsys.readouterr().err


def test_a_lora_of_rank_zero_is_said_before_anything_is_computed(run, tmp_path, capsys, nothing_computed):
    assert run("--lora", str(style(tmp_path / "a" / "style.safetensors", rank=0)))[0] == 1
    assert "no LoRA of a linear layer" in capsys.readouterr().err


@pytest.mark.parametrize("ending", ["tiff", "bmp"])
def test_a_picture_of_another_kind_is_named(run, tmp_path, capsys, nothing_computed, ending):
    source = tmp_path / f"in.{ending}"
    Image.new("RGB", (32, 32)).save(source)
    assert run(source=source)[0] == 1
    assert f"This is {ending.upper()}" in capsys.readouterr().err


def test_the_picture_itself_is_not_replaced(run, tmp_path, capsys, nothing_computed):
    source = picture(tmp_path / "same.png", 32, 32)
    before = source.read_bytes()
    assert run(source=source, out="same.png")[0] == 1
    (tmp_path / "link.png").symlink_to(source)
    assert run(source=source, out="link.png")[0] == 1
    assert "is the picture itself" in capsys.readouterr().err
    assert source.read_bytes() == before


@pytest.mark.parametrize("source", ["absent.png", ".", "/dev/null"])
def test_a_picture_that_is_no_file_is_said(run, tmp_path, capsys, nothing_computed, source):
    assert run(source=tmp_path / source)[0] == 1
    assert re.search(r"no picture file|is a folder", capsys.readouterr().err)


@pytest.mark.parametrize("prompt", ["\udc80", "a\0b"])
def test_a_prompt_that_is_no_text_is_said(tmp_path, capsys, nothing_computed, prompt):
    source = picture(tmp_path / "in.png", 32, 32)
    assert edit.main([str(source), prompt, "-o", str(tmp_path / "o.png")]) == 1
    assert "Type it anew" in capsys.readouterr().err


@pytest.mark.parametrize(
    "part", ["text_encoder/model.safetensors", "text_encoder/config.json", "tokenizer/tokenizer.json"]
)
@pytest.mark.parametrize("content", [b"[]", b"junk", b""])
def test_damaged_text_encoders_are_said_to_be_unreadable(run, models, tmp_path, capsys, part, content):
    folder = tmp_path / "encoders"
    shutil.copytree(models, folder)
    (folder / part).write_bytes(content)
    assert run("--text-encoders", str(folder))[0] == 1
    assert re.search("text encoder in|tokenizer in", capsys.readouterr().err)


def drawn_by_the_model(monkeypatch):
    """Has the model give a real edit, of a picture that it is given: a disc recoloured, the rest tinted."""
    given = pair(160, 200, shift=(2.0, 1.0))
    monkeypatch.setattr(edit, "restore", lambda *_: given.edited[None])
    return given


def saved(path, picture):
    Image.fromarray(to_uint8(picture)).save(path)
    return path


def test_keep_writes_what_was_edited_on_the_pictures_own_pixels_and_the_edit_as_it_came(
    run, tmp_path, monkeypatch, capsys
):
    given = drawn_by_the_model(monkeypatch)
    source = saved(tmp_path / "in.png", given.source)
    status, out = run("--keep", source=source)
    assert status == 0
    assert np.array_equal(pixels(tmp_path / "out_raw.png"), to_uint8(given.edited).astype(int))
    far = ~blur(given.changed[None].float(), 8)[0].gt(0.001).numpy()
    assert np.array_equal(pixels(out)[far], pixels(source)[far])
    assert not np.array_equal(pixels(out), pixels(source))
    said = capsys.readouterr().out
    assert "the rest is your own pixels" in said and "out_raw.png" in said
    status, alone = run(source=source, out="alone.png")
    assert alone.read_bytes() == (tmp_path / "out_raw.png").read_bytes() and not (tmp_path / "alone_raw.png").exists()


def test_a_whole_scene_is_written_as_it_came_and_the_command_says_so(run, tmp_path, monkeypatch, capsys):
    given = drawn_by_the_model(monkeypatch)
    status, out = run("--keep", size=(200, 160))
    assert status == 0 and out.read_bytes() == (tmp_path / "out_raw.png").read_bytes()
    assert np.array_equal(pixels(out), to_uint8(given.edited).astype(int))
    assert "the whole picture changed" in capsys.readouterr().out


@pytest.mark.parametrize("error", [RuntimeError("not enough memory"), MemoryError()], ids=repr)
def test_an_error_in_keep_costs_no_edit(run, tmp_path, monkeypatch, capsys, error):
    def fails(*_, **__):
        raise error

    drawn_by_the_model(monkeypatch)
    monkeypatch.setattr(switch, "keep", fails)
    status, out = run("--keep")
    assert status == 0 and out.read_bytes() == (tmp_path / "out_raw.png").read_bytes()
    assert "Keep failed" in capsys.readouterr().out


def test_stopping_the_command_while_it_keeps_says_where_the_edit_is(run, tmp_path, monkeypatch, capsys):
    def stop(*_, **__):
        raise KeyboardInterrupt

    drawn_by_the_model(monkeypatch)
    monkeypatch.setattr(switch, "keep", stop)
    status, out = run("--keep")
    assert status == 130 and not out.exists() and (tmp_path / "out_raw.png").exists()
    said = capsys.readouterr().err
    assert "the edit as it came is" in said and "out_raw.png" in said


@pytest.mark.parametrize(
    ("name", "words"),
    [("x" * 249 + ".png", "too long"), ("in.png", "which the edit would replace"), ("folder.png", "is a folder")],
)
def test_a_name_beside_which_the_raw_edit_cannot_be_written_is_said_before_anything_is_computed(
    run, tmp_path, capsys, nothing_computed, name, words
):
    source = picture(tmp_path / ("in_raw.png" if name == "in.png" else "a.png"), 80, 48)
    (tmp_path / "folder_raw.png").mkdir()
    assert run("--keep", out=name, source=source)[0] == 1
    assert words in capsys.readouterr().err


def test_transparency_that_a_kept_jpeg_cannot_hold_is_refused_before_anything_is_computed(
    run, transparent, capsys, nothing_computed
):
    assert run("--keep", "--aspect-ratio", "1:1", source=transparent, out="out.jpg")[0] == 1
    assert "JPEG cannot hold it" in capsys.readouterr().err


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), MemoryError()], ids=repr)
def test_what_keeps_the_kept_picture_from_being_written_is_said_with_where_the_edit_is(
    run, tmp_path, monkeypatch, capsys, error
):
    given, write = drawn_by_the_model(monkeypatch), Path.write_bytes

    def fails(path, data):
        if path.name == "out.png":
            raise error
        return write(path, data)

    source = saved(tmp_path / "in.png", given.source)
    monkeypatch.setattr(Path, "write_bytes", fails)
    status, _ = run("--keep", source=source)
    assert status == 1 and (tmp_path / "out_raw.png").exists()
    assert "The edit as it came is" in (said := capsys.readouterr().err) and "out_raw.png" in said


def test_a_disk_that_fills_up_while_the_kept_picture_is_written_costs_neither_the_edit_nor_the_older_picture(
    run, tmp_path, monkeypatch, capsys
):
    given, keep = drawn_by_the_model(monkeypatch), switch.keep
    source = saved(tmp_path / "in.png", given.source)
    (tmp_path / "out.png").write_bytes(older := b"an older picture " * 200)
    with contextlib.ExitStack() as later:

        def fills_up(*one, **more):
            kept = keep(*one, **more)
            later.enter_context(full_disk())
            return kept

        monkeypatch.setattr(switch, "keep", fills_up)
        status, out = run("--keep", source=source)
    said = capsys.readouterr().err
    assert status == 1 and out.read_bytes() == older
    assert np.array_equal(pixels(tmp_path / "out_raw.png"), to_uint8(given.edited).astype(int))
    assert f"{out} was not written. The edit as it came is {tmp_path / 'out_raw.png'}" in said and "Errno" not in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.png", "out.png", "out_raw.png"]


def test_the_edit_as_it_came_takes_no_earlier_files_name_and_the_command_says_which_it_took(
    run, tmp_path, monkeypatch, capsys
):
    given = drawn_by_the_model(monkeypatch)
    source = saved(tmp_path / "in.png", given.source)
    (tmp_path / "out_raw.png").write_bytes(b"an earlier one")
    (tmp_path / "out_raw_2.png").symlink_to(tmp_path / "nowhere.png")
    assert run("--keep", source=source)[0] == 0
    assert (tmp_path / "out_raw.png").read_bytes() == b"an earlier one" and not (tmp_path / "nowhere.png").exists()
    assert np.array_equal(pixels(tmp_path / "out_raw_3.png"), to_uint8(given.edited).astype(int))
    assert f"The edit as it came: {tmp_path / 'out_raw_3.png'}" in capsys.readouterr().out


def test_a_raw_name_that_is_a_link_to_out_is_refused_before_the_edit_as_it_came_is_lost_over_it(
    run, tmp_path, capsys, nothing_computed
):
    (tmp_path / "out.png").write_bytes(b"an older one")
    (tmp_path / "out_raw.png").hardlink_to(tmp_path / "out.png")
    assert run("--keep")[0] == 1
    assert "is the same file as" in capsys.readouterr().err


def test_an_older_edit_that_another_program_holds_costs_neither_it_nor_the_new_one(run, tmp_path, monkeypatch, capsys):
    (tmp_path / "out.png").write_bytes(b"an older one")

    def held(draft, path):
        raise PermissionError(13, "The process cannot access the file", str(draft))

    monkeypatch.setattr(Path, "replace", held)
    status, out = run()
    assert status == 1 and out.read_bytes() == b"an older one" and size_of(tmp_path / "out_2.png") == (80, 48)
    said = capsys.readouterr().err
    assert f"{out}: The process cannot access the file." in said and f"The edit is {tmp_path / 'out_2.png'}." in said


@pytest.mark.parametrize("tries", [3, 99])
def test_on_windows_a_file_that_a_scanner_holds_for_a_moment_is_waited_for(tmp_path, monkeypatch, tries):
    out, real, asked = tmp_path / "out.png", Path.replace, []

    def held(draft, path):
        asked.append(path)
        if len(asked) < tries:
            raise PermissionError(13, "The process cannot access the file", str(draft))
        return real(draft, path)

    monkeypatch.setattr(written, "sys", SimpleNamespace(platform="win32"))
    monkeypatch.setattr(written, "_PAUSES", (0.0, 0.0, 0.0))
    monkeypatch.setattr(Path, "replace", held)
    with pytest.raises(PermissionError) if tries == 99 else contextlib.nullcontext():
        written.write_whole(out, b"an edit")
    assert len(asked) == min(tries, 4) and out.exists() == (tries == 3)


def test_stopping_the_command_leaves_no_traceback(run, capsys, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(edit, "encode_prompts", stop)
    status, out = run()
    assert status == 130 and not out.exists()
    assert "nothing was written" in capsys.readouterr().err
