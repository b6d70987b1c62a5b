"""A work folder outlives a stop at any moment, a full disk and a forgetful user; what cannot go on says why."""

from __future__ import annotations

import runpy
import sys
from dataclasses import replace

import pytest
import torch
from full_disk import full_disk
from kontext_bridge.kontext.demo.shipped import demo_files
from kontext_bridge.kontext.errors import BadRequest, DamagedFile, KontextError
from kontext_bridge.training import __main__ as command
from kontext_bridge.training import card, grid, lora, stored
from kontext_bridge.training.album import Subject, sheets
from kontext_bridge.training.autoencoder import WEIGHTS as VAE_WEIGHTS
from kontext_bridge.training.autoencoder import new_autoencoder, trained_autoencoder
from kontext_bridge.training.instructions import EditKind
from kontext_bridge.training.kept_files import put_state, put_tensors
from kontext_bridge.training.network import DemoNetwork
from kontext_bridge.training.pool import Pool
from kontext_bridge.training.scenes import SMALL
from kontext_bridge.training.train import STATE, WEIGHTS, Course, Teacher, TrainingPlan, further_plan, trained_network
from kontext_bridge.training.transformer import DEMO

ALONE = Subject(SMALL[0], frozenset({EditKind.RECOLOUR}), plain=True)
TINY = replace(DEMO, doubles=1, singles=1)
PLAN = TrainingPlan((Course("first", 1.0, ((ALONE, 1.0),), 100),), steps=2, families=1, size=TINY)


@pytest.fixture(scope="module")
def pool():
    return Pool.made(ALONE, sheets(ALONE, 1, 0), lambda shown: torch.zeros(len(shown), 16, 8, 10), "cpu")


@pytest.fixture
def folder(pool, tmp_path):
    """A work folder in which all is done."""
    Teacher(tmp_path, PLAN, lambda _: pool).run(60)
    return tmp_path


@pytest.mark.parametrize("keep", [put_state, lambda state, path: put_tensors(state, path)])
def test_a_full_disk_leaves_what_was_kept_before_and_says_so(keep, tmp_path):
    path = tmp_path / "kept"
    keep({"a": torch.ones(4)}, path)
    before = path.read_bytes()
    with full_disk(), pytest.raises(KontextError, match=r"could not be written: .*is as it was"):
        keep({"a": torch.ones(100_000)}, path)
    assert path.read_bytes() == before and [one.name for one in tmp_path.iterdir()] == ["kept"]


def test_a_stop_while_a_file_is_written_leaves_the_one_before(tmp_path, monkeypatch):
    put_state({"a": 1}, tmp_path / STATE)
    monkeypatch.setattr("pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        put_state({"a": 2}, tmp_path / STATE)
    assert torch.load(tmp_path / STATE) == {"a": 1} and [one.name for one in tmp_path.iterdir()] == [STATE]


def test_half_a_state_is_named_with_what_to_do_and_then_training_begins_with_the_weights(folder, pool):
    (folder / STATE).write_bytes((folder / STATE).read_bytes()[:5000])
    with pytest.raises(DamagedFile, match=r"state\.pt cannot be read\. Take state\.pt away"):
        Teacher(folder, PLAN, lambda _: pool)
    (folder / STATE).unlink()
    assert Teacher(folder, PLAN, lambda _: pool).step == 0


def test_a_state_of_another_plan_is_not_gone_on_with_as_if_it_were_this_ones(folder, pool):
    with pytest.raises(BadRequest, match=r"is of the plan 'first', and this is 'further'\. Take state\.pt away"):
        Teacher(folder, replace(further_plan(False), size=TINY), lambda _: pool)
    assert Teacher(folder, replace(PLAN, steps=5, families=7, rate=0.1), lambda _: pool).step == 2


def test_fewer_steps_than_are_done_are_not_passed_over_without_a_word(folder, pool, caplog):
    caplog.set_level("INFO")
    Teacher(folder, PLAN, lambda _: pool).run(60)
    assert "All 2 steps are done: with more --steps it would go on." in caplog.text


def test_weights_that_are_another_networks_or_half_are_named(folder):
    with pytest.raises(DamagedFile, match="another network than the demo model's"):
        trained_network(folder)
    (folder / WEIGHTS).write_bytes(b"half")
    with pytest.raises(DamagedFile, match=r"cannot be read\. Make one first"):
        trained_network(folder, TINY)
    with pytest.raises(DamagedFile, match=r"There is no .*The VAE comes first"):
        trained_autoencoder(folder)


def test_a_pool_of_another_vae_or_number_is_made_anew(pool, tmp_path):
    device = torch.device("cpu")
    pool.save(tmp_path, "1 families by VAE a")
    assert Pool.loaded(ALONE, tmp_path, device, "1 families by VAE a") is not None
    assert Pool.loaded(ALONE, tmp_path, device, "2 families by VAE a") is None
    assert Pool.loaded(ALONE, tmp_path, device, "1 families by VAE b") is None
    (kept,) = tmp_path.iterdir()
    kept.write_bytes(kept.read_bytes()[:100])
    assert Pool.loaded(ALONE, tmp_path, device, "1 families by VAE a") is None


def run(monkeypatch, main, *words):
    monkeypatch.setattr(sys, "argv", ["training", *map(str, words)])
    main()


def put_vae(folder):
    put_tensors({name: t.contiguous() for name, t in new_autoencoder().state_dict().items()}, folder / VAE_WEIGHTS)


def test_a_vae_whose_latents_a_network_reads_is_left_as_it_is(tmp_path, monkeypatch):
    put_vae(tmp_path)
    put_tensors(DemoNetwork(DEMO).state_dict(), tmp_path / WEIGHTS)
    before = (tmp_path / VAE_WEIGHTS).read_bytes()
    run(monkeypatch, command.main, tmp_path, "--seconds", 0.001)
    assert (tmp_path / VAE_WEIGHTS).read_bytes() == before
    with pytest.raises(BadRequest, match="Name a new folder for a new VAE"):
        run(monkeypatch, command.main, tmp_path, "--only", "autoencoder")


def test_a_failed_run_does_not_go_on_drawing(folder, monkeypatch):
    ended = []

    class Workers:
        def __init__(self, *_):
            pass

        def map(self, *_):
            return iter(())

        def shutdown(self, cancel_futures=False):
            ended.append(cancel_futures)

    put_vae(folder)
    monkeypatch.setattr(command, "ProcessPoolExecutor", Workers)
    with pytest.raises(BadRequest, match="is of the plan"):
        run(monkeypatch, command.main, folder, "--further", "--workers", 1)
    assert ended == [True]


def test_a_stop_while_the_shipped_model_is_laid_out_does_not_leave_a_folder_that_seems_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(stored, "_network", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        stored.laid_out(demo_files(), tmp_path)
    assert not (tmp_path / WEIGHTS).exists()


@pytest.mark.parametrize("subject", [ALONE, Subject((256, 256), frozenset({EditKind.TIME}))])
def test_a_single_family_is_a_family_of_every_size(subject):
    plan = replace(PLAN, courses=(Course("first", 1.0, ((subject, 1.0),), 100),))
    assert command.Album(plan, None, None).count(subject) == 1


@pytest.mark.parametrize(
    ("main", "words"),
    [
        (command.main, "F --steps 0"),
        (command.main, "F --steps -3"),
        (command.main, "F --families 0"),
        (command.main, "F --workers -1"),
        (command.main, "F --seconds nan"),
        (command.main, "F --seconds -1"),
        (command.main, "F --rate inf"),
        (command.main, "F --further --only autoencoder"),
        (lora.main, "F --families 0"),
        (lora.main, "F --workers 0"),
        (card.main, "F OUT --steps 8 0"),
        (card.main, "F OUT --singles -1"),
        (grid.main, "F OUT --size foo"),
        (grid.main, "F OUT --size 100x64"),
    ],
)
def test_a_number_that_cannot_be_is_refused_at_the_command_line(main, words, monkeypatch, capsys):
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, main, *words.split())
    assert ended.value.code == 2 and " is no" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "words", "says"),
    [
        ("__main__", "F --device foo", "The device 'foo' cannot be used"),
        ("__main__", "F --only network --seconds 5", "The VAE comes first"),
        ("__main__", "FILE --seconds 1", "File exists"),
        ("lora", "F", "Make one first"),
        ("grid", "F g.png", "Make one first"),
        ("card", "F OUT", "Make one first"),
        ("example", "F/none/x.png", "No such file or directory"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*found in sys.modules after import:RuntimeWarning")
def test_what_a_command_lacks_is_one_line(name, words, says, tmp_path, monkeypatch):
    (tmp_path / "FILE").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["training", *words.split()])
    with pytest.raises(SystemExit, match=says) as ended:
        runpy.run_module(f"kontext_bridge.training.{name}", run_name="__main__")
    assert "\n" not in str(ended.value.code)
