"""The demo model off ComfyUI: its files are found and read, or refused by name, and the command edits with it."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from kontext_bridge import edit
from kontext_bridge.kontext.checkpoint.purpose import CALLED, PIXELS, PURPOSE, Purpose, as_tensor, purpose_in
from kontext_bridge.kontext.checkpoint.reading import read_checkpoint
from kontext_bridge.kontext.demo import shipped
from kontext_bridge.kontext.errors import DamagedFile, WrongModel
from kontext_bridge.kontext.fp8 import devices
from kontext_bridge.kontext.standalone.text import encode_words
from kontext_bridge.kontext.standalone.tiny import write_tiny
from kontext_bridge.training.vocabulary import ROWS, WORDS, numbers
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_demo import SAID, write_demo

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    return folder, write_demo(folder)


@pytest.fixture
def installed(made, monkeypatch):
    """The pack with these files as its demo model."""
    monkeypatch.setattr(shipped, "FOLDER", made[0])
    return made[0]


def test_files_that_users_do_not_get_are_noticed():
    assert shipped.FOLDER.resolve() == REPOSITORY / "kontext" / "demo"
    told = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    assert '"kontext/demo/*.safetensors"' in told, "pip leaves out what is not named there"
    for line in (REPOSITORY / ".comfyignore").read_text(encoding="utf-8").splitlines():
        assert not line.startswith(("/kontext", "kontext", "*", "!")) or "standin" in line, line
    for name in (shipped.TRANSFORMER, shipped.VAE, shipped.TEXT):
        assert name.endswith(".safetensors")


def test_a_card_that_counts_other_words_or_bytes_than_the_files_have_is_noticed():
    card = (REPOSITORY / "docs" / "demo-model.md").read_text(encoding="utf-8")
    files = list(shipped.FOLDER.glob("*.safetensors"))
    with safe_open(shipped.FOLDER / shipped.TEXT, "pt") as file:
        words = len(json.loads(file.metadata()["kontext_bridge.words"]))
    (told,) = re.findall(r"some (\d+) words", card)
    assert abs(int(told) - words) <= 10
    (megabytes,) = re.findall(r"([\d.]+) MB with its LoRA", card)
    assert float(megabytes) == round(sum(file.stat().st_size for file in files) / 1e6, 1)


@pytest.mark.parametrize("missing", [[shipped.TEXT], [shipped.VAE, shipped.TRANSFORMER]])
def test_a_demo_that_is_not_whole_is_one_sentence_with_the_names(made, missing, tmp_path):
    shutil.copytree(made[0], tmp_path / "demo")
    for name in missing:
        (tmp_path / "demo" / name).unlink()
    with pytest.raises(DamagedFile) as raised:
        shipped.demo_files(tmp_path / "demo")
    assert all(name in str(raised.value) for name in missing) and "nstall Kontext Bridge anew" in str(raised.value)


def test_another_encoding_than_the_trained_encoders_is_noticed(made):
    folder, network = made
    (found,) = encode_words(folder / shipped.TEXT, [SAID])
    with torch.inference_mode():
        states, summary = network.words(torch.tensor([numbers(SAID)]))
    assert (found.text - states).norm() / states.norm() < 1e-3
    assert (found.pooled - summary).norm() / summary.norm() < 1e-3


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (lambda tensors, told: told.clear(), WrongModel),
        (lambda tensors, told: told.update({shipped.WORDS: "["}), DamagedFile),
        (lambda tensors, told: told.update({shipped.WORDS: "3"}), DamagedFile),
        (lambda tensors, told: told.update({shipped.WORDS: "[1, 2, 3]"}), DamagedFile),
        (lambda tensors, told: told.update({shipped.WORDS: json.dumps(["a"] * (ROWS + 1))}), DamagedFile),
        (lambda tensors, told: told.update({shipped.PLACES: "15"}), DamagedFile),
        (lambda tensors, told: told.update({shipped.PLACES: "-1"}), DamagedFile),
        (lambda tensors, told: told.update({shipped.PLACES: "many"}), DamagedFile),
        (lambda tensors, told: tensors.pop("blocks.1.qkv.weight"), DamagedFile),
        (lambda tensors, told: tensors.update(more=torch.zeros(1)), DamagedFile),
        (lambda tensors, told: tensors["norm.bias"].fill_(float("nan")), DamagedFile),
    ],
)
def test_a_text_encoder_that_is_not_whole_is_refused_by_its_name(made, spoil, error, tmp_path):
    tensors = load_file(made[0] / shipped.TEXT)
    told = {shipped.WORDS: json.dumps(WORDS), shipped.PLACES: "16"}
    spoil(tensors, told)
    save_file(tensors, tmp_path / "words.safetensors", metadata=told)
    with pytest.raises(error, match=r"words\.safetensors"):
        shipped.read_words(tmp_path / "words.safetensors")


def test_what_a_model_was_made_for_comes_from_its_file(made):
    assert read_checkpoint(made[0] / shipped.TRANSFORMER).purpose == Purpose(128 * 128, "demo model")
    assert purpose_in({}, "kontext") == Purpose(1024 * 1024, None) and Purpose().megapixels == 1
    assert purpose_in({CALLED: "  "}, "kontext").called is None


@pytest.mark.parametrize(
    "pixels", ["", "0", "255", "-16384", "16384.0", "1e5", "many", "99999999", "9" * 5000, "١٦٣٨٤"]
)
def test_a_size_that_is_none_is_refused_and_not_guessed(pixels):
    with pytest.raises(DamagedFile, match="edits pictures of") as raised:
        purpose_in({PIXELS: pixels}, "kontext")
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_a_purpose_that_a_file_holds_in_a_tensor_is_read_or_refused(made, prefix, tmp_path):
    tensors = {f"{prefix}{name}": tensor for name, tensor in load_file(made[0] / shipped.TRANSFORMER).items()}
    path = tmp_path / "kontext.safetensors"
    save_file(tensors, path)
    assert read_checkpoint(path).purpose == Purpose()
    for purpose in (Purpose(64 * 64, "demo model"), Purpose(512 * 512)):
        save_file(tensors | {prefix + PURPOSE: as_tensor(purpose)}, path)
        assert read_checkpoint(path).purpose == purpose
    for text in (b"[]", b"{", b"3", b"\xff", b"[" * 100_000):
        save_file(tensors | {prefix + PURPOSE: torch.tensor(list(text), dtype=torch.uint8)}, path)
        with pytest.raises(DamagedFile, match=r"kontext\.safetensors"):
            read_checkpoint(path)


@pytest.fixture
def source(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (200, 300, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "in.png")
    return tmp_path / "in.png"


@pytest.fixture
def sampled(monkeypatch):
    """The edits that are sampled."""
    asked, real = [], edit.sample
    monkeypatch.setattr(
        edit, "sample", lambda model, wanted, *a, **k: asked.append(wanted) or real(model, wanted, *a, **k)
    )
    return asked


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_the_command_edits_with_the_demo_at_its_own_size_and_says_what_made_the_picture(
    installed, source, sampled, tmp_path, suffix
):
    out = tmp_path / f"out{suffix}"
    assert edit.main([str(source), SAID, "-o", str(out), "--demo", "--steps", "2", "--device", "cpu"]) == 0
    with Image.open(out) as opened:
        opened.load()
        assert opened.size == (300, 200)
        if suffix == ".png":
            assert opened.info["Software"] == "Kontext Bridge, demo model"
    (wanted,) = sampled
    assert (wanted.width, wanted.height) == (160, 112)


def test_the_demo_edits_alike_where_there_are_no_8_bit_floats_and_kontext_is_refused(
    installed, source, tmp_path, capsys, monkeypatch
):
    options = ["--steps", "2", "--device", "cpu", "--megapixels", "0.004", "--compute", "storage"]
    told = []
    for name, holds in ("with.png", True), ("without.png", False):
        # As on a Mac.
        monkeypatch.setitem(devices._HOLDS, torch.device("cpu"), holds)
        assert edit.main([str(source), SAID, "-o", str(tmp_path / name), "--demo", *options]) == 0
        with Image.open(tmp_path / name) as opened:
            told.append(np.asarray(opened.convert("RGB")).astype(int))
    assert abs(told[0] - told[1]).max() <= 1
    assert edit.main([str(source), SAID, "-o", str(tmp_path / "tiny.png"), "--tiny", *options]) == 1
    assert "has no 8-bit floats" in capsys.readouterr().err


def test_the_demos_files_may_be_named_one_by_one_and_another_size_be_asked_for(installed, source, sampled, tmp_path):
    files = shipped.demo_files()
    named = ["--model", str(files.transformer), "--text-encoders", str(files.text), "--vae", str(files.vae)]
    common = [str(source), SAID, "-o", str(tmp_path / "out.png"), "--steps", "1", "--keep", "--megapixels", "0.004"]
    assert edit.main([*common, *named]) == 0
    for name in ("out.png", "out_raw.png"):
        with Image.open(tmp_path / name) as opened:
            assert opened.size == (300, 200) and opened.info["Software"] == "Kontext Bridge, demo model"
    assert sampled[0].width * sampled[0].height < 0.006 * 1024 * 1024


def test_a_demo_that_is_missing_is_one_line(source, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    assert edit.main([str(source), SAID, "-o", str(tmp_path / "out.png"), "--demo"]) == 1
    told = capsys.readouterr().err
    assert shipped.TRANSFORMER in told and told.count("\n") == 1 and not (tmp_path / "out.png").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--demo", "--tiny"], "--tiny and --demo are two models"),
        (["--demo", "--model", "MODEL", "--text-encoders", "TEXT", "--vae", "VAE"], "--demo is instead of --model"),
        (["--demo", "--vae", "VAE"], "--vae needs --model"),
        (["--model", "MODEL", "--text-encoders", "VAE", "--vae", "VAE"], "--text-encoders takes the folder"),
    ],
)
def test_options_that_do_not_go_with_the_demo_are_refused(installed, source, options, says, tmp_path, capsys):
    files = shipped.demo_files()
    names = {"MODEL": str(files.transformer), "TEXT": str(files.text), "VAE": str(files.vae)}
    given = [names.get(option, option) for option in options]
    assert edit.main([str(source), SAID, "-o", str(tmp_path / "out.png"), *given]) == 1
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("model", "text", "vae", "says"),
    [
        ("demo", "demo", "tiny", "The demo model has a VAE of its own"),
        ("tiny", "tiny", "demo", "The VAE is the demo model's, and the model is not"),
        ("tiny", "demo", "tiny", "encoded 128 numbers wide, and this model reads 64: the text encoder is another"),
        ("demo", "tiny", "demo", "encoded 64 numbers wide, and this model reads 128: the text encoder is another"),
    ],
)
def test_what_belongs_to_another_model_is_one_line(installed, source, model, text, vae, says, tmp_path, capsys):
    files, folder = shipped.demo_files(), tmp_path / "tiny"
    folder.mkdir()
    tiny = write_tiny(folder)
    named = {
        "--model": {"demo": files.transformer, "tiny": tiny}[model],
        "--text-encoders": {"demo": files.text, "tiny": folder}[text],
        "--vae": {"demo": files.vae, "tiny": folder / "vae"}[vae],
    }
    given = [str(word) for pair in named.items() for word in pair]
    common = ["-o", str(tmp_path / "out.png"), "--steps", "1", "--megapixels", "0.016"]
    capsys.readouterr()
    assert edit.main([str(source), SAID, *common, *given]) == 1
    told = capsys.readouterr().err
    assert says in told.splitlines()[-1] and "Traceback" not in told and not (tmp_path / "out.png").exists()


def test_a_size_that_the_demo_model_makes_noise_of_is_refused(installed, source, tmp_path, capsys):
    common = ["-o", str(tmp_path / "out.png"), "--demo", "--steps", "1"]
    assert edit.main([str(source), SAID, *common, "--megapixels", "1"]) == 1
    assert "about 0.016 megapixels, and of 1248x832 it would make noise. Leave --mega" in capsys.readouterr().err


def test_a_picture_that_is_too_narrow_is_refused_with_what_to_do(installed, tmp_path, capsys):
    Image.new("RGB", (3000, 2)).save(tmp_path / "strip.png")
    assert edit.main([str(tmp_path / "strip.png"), SAID, "-o", str(tmp_path / "out.png"), "--demo"]) == 1
    assert "at most 4096. Crop the picture" in capsys.readouterr().err


def test_a_model_that_comfyui_saved_is_known_for_what_it_says_it_is(made, tmp_path, caplog):
    tensors = load_file(made[0] / shipped.TRANSFORMER)
    save_file(tensors | {PURPOSE: as_tensor(Purpose(128 * 128, "demo model"))}, tmp_path / "saved.safetensors")
    assert read_checkpoint(tmp_path / "saved.safetensors").labelled and not caplog.records


def test_a_kontext_is_still_edited_at_a_megapixel(tmp_path):
    assert read_checkpoint(write_tiny(tmp_path)).purpose == Purpose()
