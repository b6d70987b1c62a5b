"""A small Ray cluster of this machine's own, and the processes in it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from patience import PATIENCE

_START = "from ray.scripts.scripts import main; main()"
# Ray gives up what a busy machine is late with.
PATIENT = {
    "RAY_raylet_start_wait_time_s": "600",
    "RAY_worker_register_timeout_seconds": "600",
    "RAY_gcs_server_request_timeout_seconds": "600",
    "RAY_health_check_timeout_ms": "300000",
    "RAY_health_check_initial_delay_ms": "300000",
    "RAY_agent_register_timeout_ms": "600000",
}


# Named, they are not waited for, which a busy machine takes too long over.
_PORTS = ("dashboard-agent-grpc-port", "dashboard-agent-listen-port", "metrics-export-port", "runtime-env-agent-port")


class Head:
    """Two CPUs; address: for --ray."""

    def __init__(self, address: str, pid: int, folder: Path) -> None:
        self.address = address
        self.folder = folder
        self._pid = pid

    def processes(self) -> dict[int, str]:
        """What Ray's workers are at, by their process ids."""
        parents, titles = {}, {}
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError, ValueError):
                parents[int(path.name)] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
                titles[int(path.name)] = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        ours, found = {self._pid}, {self._pid}
        while found:
            found = {pid for pid, parent in parents.items() if parent in found}
            ours |= found
        return {pid: title.strip() for pid, title in titles.items() if pid in ours and title.startswith("ray::")}

    def logs(self) -> Iterator[bytes]:
        for path in self.folder.rglob("*"):
            if path.is_file():
                yield path.read_bytes()


@contextlib.contextmanager
def ray_head() -> Iterator[Head]:
    folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))  # short, as sockets lie in it
    port, *others = _free_ports(1 + len(_PORTS))
    words = [sys.executable, "-c", _START, "start", "--head", "--block", "--num-cpus=2", f"--port={port}"]
    words += [f"--{name}={other}" for name, other in zip(_PORTS, others, strict=True)]
    words += ["--node-ip-address=127.0.0.1", "--object-store-memory=200000000", "--include-dashboard=false"]
    words += ["--disable-usage-stats", f"--temp-dir={folder}"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OXEN", "KONTEXT"))}
    environment |= PATIENT
    with (folder / "start").open("wb") as log:
        process = subprocess.Popen(words, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        until = time.monotonic() + 10 * PATIENCE
        while "Ray runtime started" not in (folder / "start").read_text():
            assert process.poll() is None and time.monotonic() < until, (folder / "start").read_text()
            time.sleep(0.2)
        yield Head(f"127.0.0.1:{port}", process.pid, folder)
    finally:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
