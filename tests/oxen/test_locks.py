from __future__ import annotations

import errno
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kontext_bridge import host
from kontext_bridge.oxen.control import Control, Deadline
from kontext_bridge.oxen.errors import Misconfigured, TimedOut
from kontext_bridge.oxen.jobs import locks
from kontext_bridge.oxen.jobs.locks import hold
from patience import timed


def test_a_lock_that_another_run_keeps_is_waited_for_until_the_deadline(tmp_path: Path) -> None:
    control = Control()
    with hold(tmp_path, "key", control):
        with (
            timed() as took,
            pytest.raises(TimedOut, match=r"Another run is working on the same edit.*run again"),
            hold(tmp_path, "key", control, Deadline(0.2)),
        ):
            pass
        assert took.seconds >= 0.2 and took.own < 2
    with hold(tmp_path, "key", control, Deadline(0.0)):
        pass
    assert list(tmp_path.iterdir()) == []


def failing(number: int) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number))

    return fail


def held(folder: Path) -> None:
    with hold(folder / "locks", "key", Control()):
        raise AssertionError("there is no lock")


@pytest.mark.skipif(sys.platform == "win32", reason="flock is POSIX's")
@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_named_with_the_way_out(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks.fcntl, "flock", failing(number))
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else None  # noqa: PTH208
    for _ in range(3):
        with pytest.raises(Misconfigured, match=r"has no file locks.*was not sent.*KONTEXT_BRIDGE_HOME") as raised:
            held(tmp_path)
        assert str(tmp_path / "locks") in str(raised.value) and os.strerror(number) in str(raised.value)
    assert before is None or len(os.listdir("/proc/self/fd")) == before, "every handle was closed"  # noqa: PTH208


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EACCES, r"cannot be written.*Let this user write there.*KONTEXT_BRIDGE_HOME"),
        (errno.EPERM, r"cannot be written.*Let this user write there.*KONTEXT_BRIDGE_HOME"),
        (errno.EROFS, r"cannot be written.*KONTEXT_BRIDGE_HOME"),
        (errno.ENOSPC, r"no room for the lock.*Make room.*KONTEXT_BRIDGE_HOME"),
        (errno.EDQUOT, r"no room for the lock.*Make room.*KONTEXT_BRIDGE_HOME"),
        (errno.EIO, r"cannot be had.*Check the disk.*KONTEXT_BRIDGE_HOME"),
        (errno.ENAMETOOLONG, r"cannot be had.*KONTEXT_BRIDGE_HOME"),
    ],
)
@pytest.mark.parametrize("call", ["open", "mkdir"])
def test_a_folder_that_takes_no_lock_is_told_for_what_it_is(
    call: str, number: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks.os, call, failing(number))
    with pytest.raises(Misconfigured, match=rf"{words}"):
        held(tmp_path / "new")


def test_a_file_in_the_place_of_the_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "locks").write_text("in the way")
    with pytest.raises(Misconfigured, match=r"as a file is in its place.*Move the file away"):
        held(tmp_path)
    with pytest.raises(Misconfigured, match=r"as a file is in its place.*Move the file away"):
        held(tmp_path / "locks")


def test_a_folder_that_is_removed_under_the_lock_loses_nothing(tmp_path: Path) -> None:
    for _ in range(2):
        with hold(tmp_path / "locks", "key", Control()):
            (tmp_path / "locks" / "key.lock").unlink()
            (tmp_path / "locks").rmdir()


def test_a_lock_file_that_cannot_be_removed_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched, hold(tmp_path, "key", Control()):
        patched.setattr(Path, "unlink", failing(errno.EROFS))
    with hold(tmp_path, "key", Control(), Deadline(0.0)):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="takes POSIX's limit of handles")
def test_a_process_without_a_handle_waits_for_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))
    taken: list[int] = []

    def free() -> None:
        time.sleep(0.2)
        while taken:
            os.close(taken.pop())

    try:
        with pytest.raises(OSError, match="Too many open files"):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        with monkeypatch.context() as patched:
            patched.setattr(locks, "_HANDLE_SECONDS", 0.1)
            with pytest.raises(Misconfigured, match=r"no file handle left.*ulimit -n"):
                held(tmp_path)
        thread = threading.Thread(target=free)
        thread.start()
        with hold(tmp_path / "locks", "key", Control()):
            pass
        thread.join()
    finally:
        while taken:
            os.close(taken.pop())
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_home_that_cannot_be_made_is_told_with_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    for place in (tmp_path / "file", tmp_path / "file" / "home"):
        monkeypatch.setenv("KONTEXT_BRIDGE_HOME", str(place))
        with pytest.raises(host.NoFolder, match=r"cannot be made.*Nothing was sent.*KONTEXT_BRIDGE_HOME"):
            host.user_folder()
    monkeypatch.delenv("KONTEXT_BRIDGE_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    for number in (errno.EROFS, errno.EACCES, errno.ENOSPC):
        with monkeypatch.context() as patched:
            patched.setattr(os, "mkdir", failing(number))
            with pytest.raises(host.NoFolder, match=rf"{os.strerror(number)}.*KONTEXT_BRIDGE_HOME"):
                host.user_folder()


def test_a_user_without_a_home_is_told_with_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KONTEXT_BRIDGE_HOME", raising=False)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)

    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nowhere)
    with pytest.raises(host.NoFolder, match=r"There is no folder.*KONTEXT_BRIDGE_HOME"):
        host.user_folder()
