"""What can be said of a run over a Ray cluster where there is none."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kontext_bridge.batch import __main__ as command
from kontext_bridge.batch.made import LimitReached, RowFailed, RunStopped
from kontext_bridge.batch.paymaster import key_pipe
from kontext_bridge.batch.ray_cluster import answered, value
from kontext_bridge.batch.ray_local import Share, share_of
from kontext_bridge.imaging.errors import ImageError
from kontext_bridge.kontext.errors import OutOfMemory
from kontext_bridge.oxen.errors import Misconfigured

Batch = Callable[..., int]
Pictures = Callable[..., Path]


def test_without_ray_the_option_says_what_to_install(
    batch: Batch, pictures: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert batch(pictures("a.png"), "--demo", "--prompt", "x", "--ray", "local") == command.NONE
    assert "python -m pip install 'ray>=2.40'" in capsys.readouterr().err
    assert not (tmp_path / "out" / "report.jsonl").read_text()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--workers", "2"], "--local or --demo"),
        (["--demo", "--workers", "2"], "--ray"),
        (["--ray", "local", "--workflow", "w.json"], "--shard"),
        (["--demo", "--ray", "local", "--device", "cuda:1"], "cuda or cpu"),
    ],
)
def test_what_does_not_go_together_with_it_is_refused(
    batch: Batch, pictures: Pictures, options: list[str], said: str, capsys: Any
) -> None:
    assert batch(pictures("a.png"), "--prompt", "x", *options) == command.NONE
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("resources", "machines", "workers", "share"),
    [
        ({"GPU": 4, "CPU": 32}, [16, 16], None, Share(4, 1.0, 1)),
        ({"GPU": 4, "CPU": 32}, [16, 16], 2, Share(2, 1.0, 1)),
        ({"GPU": 4, "CPU": 32}, [16, 16], 8, Share(8, 0.5, 1)),
        ({"GPU": 4, "CPU": 32}, [16, 16], 5, Share(5, 0.5, 1)),
        ({"CPU": 2}, [2], 2, Share(2, 0.0, 1)),
        ({"CPU": 24}, [16, 8], None, Share(2, 0.0, 12)),
        ({"CPU": 2}, [2], 5, Share(5, 0.0, 1)),
        ({"CPU": 32}, [16, 16], 1, Share(1, 0.0, 16)),
    ],
)
def test_a_worker_takes_a_gpu_a_part_of_one_or_its_share_of_the_cpus(
    resources: dict[str, float], machines: list[float], workers: int | None, share: Share
) -> None:
    assert share_of(resources, machines, workers, on_gpus=True) == share


def test_cpus_are_taken_where_gpus_are_not_wanted() -> None:
    assert share_of({"GPU": 2, "CPU": 8}, [8], None, on_gpus=False) == Share(1, 0.0, 8)


@pytest.mark.skipif(os.name != "posix", reason="pipes with a name")
def test_the_key_s_pipe_is_for_its_owner_gives_the_key_once_and_is_gone_afterwards() -> None:
    with key_pipe("a-key") as pipe:
        assert pipe is not None
        assert stat.S_IMODE(pipe.stat().st_mode) == 0o600 and stat.S_IMODE(pipe.parent.stat().st_mode) == 0o700
        with pipe.open("rb") as file:
            assert file.readline() == b"a-key\n"
    assert not pipe.parent.exists()
    with key_pipe(None) as nothing:
        assert nothing is None


def test_what_a_worker_ends_with_is_raised_again_here_whatever_it_carries() -> None:
    import pickle

    def fail(error: Exception) -> None:
        raise error

    sent = [
        RowFailed("no", is_over=True, facts={"generation_id": "g"}),
        OSError(28, "No space left"),
        OutOfMemory("too little", 3, 2),
        ImageError("too little"),
        Misconfigured("too little", status=400),
        LimitReached(),
    ]
    came = [pickle.loads(pickle.dumps(answered(lambda error=error: fail(error)))) for error in sent]
    with pytest.raises(RowFailed) as told:
        value(came[0])
    assert told.value.is_over and told.value.facts == {"generation_id": "g"}
    with pytest.raises(OSError, match="No space"):
        value(came[1])
    for error in came[2:4]:
        with pytest.raises(RowFailed, match="too little"):
            value(error)
    with pytest.raises(RunStopped, match="too little"):
        value(came[4])
    with pytest.raises(LimitReached, match="--usd"):
        value(came[5])
    with pytest.raises(ZeroDivisionError):  # a mistake of our own is no row's
        answered(lambda: 1 // 0)
