"""Weights come whole or not at all, never over another file, never as a pickle, and from the service's own place."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kontext_bridge.models import main
from kontext_bridge.oxen.api.client import Client
from kontext_bridge.oxen.control import Control
from kontext_bridge.oxen.errors import Interrupted, InvalidParameters, LocalTrouble, OxenError, ResultUnavailable
from kontext_bridge.oxen.http.fetch import Fetcher
from kontext_bridge.oxen.jobs.weights import Brought, NotWeights, TrainedWeights, bring, weights_of
from kontext_bridge.standin import Fault

HERE = TrainedWeights("bessie/my-edits", "ox-asleep-fern")


class Bringing:
    def __init__(self, remote: Any, folder: Path) -> None:
        self.remote, self.folder = remote, folder
        self.control = Control()
        self.client = Client(remote.account, self.control)
        self.fetcher = Fetcher(self.control, account=remote.account)

    def bring(
        self, weights: TrainedWeights = HERE, check: Callable[[Path], None] = lambda _: None, at: Any = None
    ) -> Brought:
        return bring(self.client, self.fetcher, weights, self.folder, check, at or (lambda *_: None))

    @property
    def files(self) -> list[str]:
        return sorted(one.name for one in self.folder.iterdir()) if self.folder.is_dir() else []


@pytest.fixture
def bringing(serve: Callable[..., Any], tmp_path: Path) -> Callable[..., Bringing]:
    return lambda **faults: Bringing(serve(**faults), tmp_path / "models" / "loras")


def test_it_comes_whole_and_again_it_is_the_same_file(bringing: Callable[..., Bringing]) -> None:
    here = bringing()
    steps: list[tuple[int, int | None]] = []
    first = here.bring(at=lambda *step: steps.append(step))
    size = here.remote.server.own.size
    assert (first.path.name, first.size, first.is_new) == ("ox-asleep-fern.safetensors", size, True)
    assert steps[-1] == (size, size) and first.path.stat().st_size == size
    again = here.bring()
    assert (again.path, again.is_new) == (first.path, False) and here.files == ["ox-asleep-fern.safetensors"]


def test_another_file_of_its_name_stays_as_it_is(bringing: Callable[..., Bringing]) -> None:
    here = bringing()
    here.folder.mkdir(parents=True)
    (here.folder / "ox-asleep-fern.safetensors").write_bytes(b"another")
    assert here.bring().path.name == "ox-asleep-fern_2.safetensors"
    assert (here.folder / "ox-asleep-fern.safetensors").read_bytes() == b"another"
    assert not here.bring().is_new and len(here.files) == 2


@pytest.mark.parametrize(
    "id", ["oxen:ox-asleep-fern", "ox-asleep-fern", "ft_ox-asleep-fern", "bessie/my-edits/ox-asleep-fern"]
)
def test_it_is_found_by_model_name_fine_tune_and_place(bringing: Callable[..., Bringing], id: str) -> None:
    assert weights_of(bringing().client, id) == HERE


@pytest.mark.parametrize(
    ("id", "words"),
    [
        ("ox-in-training", "has no weights yet"),
        ("nobody", "No fine-tune of the account"),
        ("", "is missing"),
        ("a/../b", "No fine-tune"),
    ],
)
def test_what_has_no_weights_is_told_with_what_to_do(bringing: Callable[..., Bringing], id: str, words: str) -> None:
    with pytest.raises(InvalidParameters, match=words):
        weights_of(bringing().client, id)


@pytest.mark.parametrize("name", ["../../etc/x", "con", "a" * 300, "..", "ox\\..\\y", "name\n", "öx"])
def test_its_name_leads_into_no_other_folder_and_every_system_takes_it(name: str, tmp_path: Path) -> None:
    file = TrainedWeights("a/b", name).file
    assert (tmp_path / file).parent == tmp_path and file.endswith(".safetensors") and len(file) < 90
    assert file.isascii() and not file.startswith((".", "con."))


@pytest.mark.parametrize("times", [1, None])
def test_a_connection_lost_on_the_way_is_made_good_or_leaves_nothing(
    bringing: Callable[..., Bringing], times: int | None
) -> None:
    here = bringing(answer_cut=Fault(route="file", times=times))
    if times:
        assert here.bring().is_new
        return
    with pytest.raises(OxenError, match="did not come whole"):
        here.bring()
    assert here.files == [] and here.remote.count("file") == 3


def test_what_is_not_there_is_told_and_not_asked_for_again(bringing: Callable[..., Bringing]) -> None:
    here = bringing()
    with pytest.raises(ResultUnavailable, match="There are no weights at models/nothing/"):
        here.bring(TrainedWeights("bessie/my-edits", "nothing"))
    assert here.files == [] and here.remote.count("file") == 1


def test_what_is_no_weights_gets_no_name(bringing: Callable[..., Bringing]) -> None:
    here = bringing(html_reply=Fault(route="file"))

    def check(path: Path) -> None:
        if path.read_bytes().startswith(b"<!"):
            raise NotWeights("a web page")

    with pytest.raises(NotWeights):
        here.bring(check=check)
    assert here.files == []


def test_cancel_ends_the_download_at_once_and_leaves_nothing(bringing: Callable[..., Bringing]) -> None:
    here = bringing(answer_hangs=Fault(route="file"))
    work = here.remote.in_thread(here.bring)
    here.remote.server.wait_for(lambda s: here.remote.count("file"))
    here.control.interrupt()
    with pytest.raises(Interrupted):
        work.result(5)
    assert here.files == []


def test_a_full_disk_is_told_and_leaves_nothing(bringing: Callable[..., Bringing], monkeypatch: Any) -> None:
    here = bringing()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("kontext_bridge.oxen.jobs.weights.os.fsync", full)
    with pytest.raises(LocalTrouble, match="No space left on device"):
        here.bring()
    assert here.files == []


def test_the_key_goes_to_the_service_alone(bringing: Callable[..., Bringing]) -> None:
    here = bringing(redirect_body=Fault(route="none"))
    here.bring()
    assert not here.remote.server.leaks


def test_the_command_brings_it_as_the_node_does(
    bringing: Callable[..., Bringing], capsys: pytest.CaptureFixture[str]
) -> None:
    here = bringing()
    for told in ("came, 0.4 MB", "was there already"):
        assert main(["fetch", "oxen:ox-asleep-fern", "--to", str(here.folder)]) == 0
        assert told in capsys.readouterr().out
    assert main(["fetch", "ox-in-training", "--to", str(here.folder)]) == 1
    assert "has no weights yet" in capsys.readouterr().err and here.files == ["ox-asleep-fern.safetensors"]
