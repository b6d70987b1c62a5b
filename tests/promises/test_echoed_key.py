"""A service that echoes the key in every field that it can has it neither stored, logged, shown nor sent elsewhere."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from fault_worker import png
from kontext_bridge.headless.__main__ import main
from kontext_bridge.nodes.remote import listing, orders, runs
from kontext_bridge.oxen.jobs.batch import Batch
from kontext_bridge.oxen.jobs.order import Terms
from matrix_runner import KEY, PIECE, files_with_a_piece

# The middle of the key has the form of a generation id; the whole has not.
PART = KEY.split(".")[1]
# Each may hold the key where a service of sound mind has an id, a name or a text.
IDS = {"of its own": "job-1", "the key": KEY, "a piece of the key": PART, "with a piece of the key": f"job-{PART}-1"}
STATUSES = ("succeeded", "failed", "cancelled", "processing", KEY)


class Echo:
    """An Oxen that answers with the key wherever a text may be.

    generation_id, status: of its one job. error: the HTTP status of every answer, None where all goes well.
    """

    def __init__(self, generation_id: str = "job-1", status: str = "succeeded", error: int | None = None) -> None:
        self.generation_id, self.status, self.error = generation_id, status, error
        echo = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # a hundred pages of a list would each wait for a late acknowledgement

            def do_GET(self) -> None:
                echo.answer(self)

            do_POST = do_PUT = do_DELETE = do_GET

            def log_message(self, *_: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def row(self, prompt: Any) -> dict[str, Any]:
        texts = dict.fromkeys(("model_name", "model", "media_type", "error_message", "username", "user_image"), KEY)
        echoed = dict.fromkeys(("prompt", "input_image", "aspect_ratio", "output_format", "target_namespace"), KEY)
        times = {"enqueued_at": 1_700_000_000, "started_at": KEY, "completed_at": KEY, "cost": KEY}
        ours = {"prompt": prompt} if prompt is not None else {}
        result = {"result_url": f"{self.url}/{KEY}.png?{KEY}={KEY}"}
        return {
            "generation_id": self.generation_id,
            "status": self.status,
            **texts,
            **echoed,
            **times,
            **result,
            **ours,
        }

    def body(self, method: str, path: str, sent: dict[str, Any]) -> Any:
        if self.error is not None:
            return {"error": {"type": KEY, "title": KEY, "detail": f"you sent {KEY}"}, "status_message": KEY}
        if path.startswith("/api/ai/models"):
            pricing = {"method": KEY, "cost_per_image": 0.04}
            model = {"id": "flux-kontext-dev", "display_name": KEY, "description": KEY, "summary": KEY}
            return {**model, "pricing": pricing, "request_schema": {"title": KEY, KEY: [KEY]}}
        if path.startswith("/api/ai/images/edit"):
            return {"model": KEY, "images": [{"b64_json": base64.b64encode(png(8, 8)).decode(), "url": KEY}]}
        if path == "/api/users/me":
            return {"user": {"username": KEY, "email": KEY}}
        if path.startswith(("/api/ai/queue/", "/api/ai/generations/")):
            row = self.row(None)
            return row if "queue" in path else {"generation": row}
        if method == "POST":
            return {"generations": [{"generation_id": self.generation_id, "status": KEY}], KEY: KEY}
        return {"generations": [self.row("another"), {"generation_id": KEY}], "total_cost": KEY, "total_pages": KEY}

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        sent = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        path, media_type = handler.path.partition("?")[0], f"application/json; {KEY}"
        if path.endswith(".png"):
            data, media_type = png(8, 8), f"image/png; {KEY}"
        elif path == "/api/events":
            data, media_type = self.events(), "text/event-stream"
        else:
            data = json.dumps(self.body(handler.command, path, json.loads(sent or "{}"))).encode()
        handler.send_response(self.error or 200, KEY)
        handler.send_header("Content-Type", media_type)
        handler.send_header("Content-Length", str(len(data)))
        handler.send_header("Server", KEY)
        handler.send_header("Set-Cookie", f"key={KEY}")
        handler.send_header(f"X-{PART}", KEY)
        if self.error is not None:
            handler.send_header("Retry-After", KEY)
        handler.end_headers()
        handler.wfile.write(data)

    def events(self) -> bytes:
        told = {"generation_id": self.generation_id, "status": self.status, "url": KEY, "error": KEY, "model": KEY}
        return f": {KEY}\nevent: media_generation_completed\nid: {KEY}\ndata: {json.dumps(told)}\n\n".encode()

    def __enter__(self) -> Echo:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def edit(wait: str | None) -> dict[str, Any]:
    inputs: dict[str, Any] = {"image": ["picture", 0], "prompt": "make it blue", "seed": 1, "steps": 28}
    inputs |= {"guidance": 2.5, "aspect_ratio": "match_input_image", "variations": 1, "output_format": "png"}
    inputs |= {"output_quality": 95, "disable_safety_checker": False, "send_as": "auto", "namespace": ""}
    inputs |= {"result": "reuse", "if_some_fail": "go on with what succeeded"}
    picture = node("EmptyImage", width=8, height=8, batch_size=1, color=255)
    if wait is None:
        return {"picture": picture, "submit": node("KontextSubmit", **inputs)}
    inputs |= {"wait": wait, "timeout": 10}
    save = node("SaveImage", images=["edit", 0], filename_prefix="edit")
    return {"picture": picture, "edit": node("KontextEdit", **inputs), "save": save}


def asking(generation_id: str) -> list[dict[str, Any]]:
    """What asks about a job, and about all that there is."""
    collect = {"generation_ids": generation_id, "wait": "polling", "timeout": 10, "if_some_fail": "stop with the error"}
    return [
        {"queue": node("KontextQueueStatus", generation_ids="")},
        {"queue": node("KontextQueueStatus", generation_ids=generation_id)},
        {"cancel": node("KontextCancel", generation_ids=generation_id)},
        {
            "collect": node("KontextCollect", **collect),
            "save": node("SaveImage", images=["collect", 0], filename_prefix="c"),
        },
        {"history": node("KontextHistory", pick=1, search="", count=20)},
        {"model": node("KontextModelInfo", model="flux-kontext-dev")},
    ]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., None]:
    """Runs workflows as the command line does, at DEBUG and as JSON, against an echo; nothing may hold the key."""
    monkeypatch.setenv("OXEN_API_KEY", KEY)
    monkeypatch.setenv("KONTEXT_BRIDGE_HOME", str(tmp_path / "home"))
    pieces = [KEY[i : i + PIECE] for i in range(len(KEY) - PIECE + 1)]

    def run_them(echo: Echo, *workflows: dict[str, Any], pasted: str | None = None) -> None:
        monkeypatch.setenv("OXEN_BASE_URL", echo.url)
        for workflow in workflows:
            path = tmp_path / "workflow.json"
            path.write_text(json.dumps(workflow))
            words = [] if pasted is None else ["--set", f"{next(iter(workflow))}.generation_ids={pasted}"]
            for options in (["--debug", *words], ["--json", *words]):
                main([str(path), "--output", str(tmp_path / "out"), *options])
                printed = "".join(capfd.readouterr())
                shown = [line for line in printed.splitlines() if any(piece in line for piece in pieces)]
                assert not shown, (list(workflow), shown[:3])
            assert not files_with_a_piece(tmp_path), list(workflow)

    return run_them


@contextmanager
def patience_of(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What waits for a service that is of no use is not what these tests are about."""
    with monkeypatch.context() as patched:
        patched.setattr("kontext_bridge.oxen.jobs.doubt._PAUSES", (0.0,))
        patched.setattr("kontext_bridge.oxen.jobs.doubt.SETTLE_SECONDS", 0.0)
        patched.setattr("kontext_bridge.oxen.http.transport._backoff", lambda attempt: 0.01)
        patched.setattr("kontext_bridge.oxen.jobs.waiting._OUTAGE_SECONDS", 0.2)
        patched.setattr("kontext_bridge.oxen.jobs.lookup._MAX_PAGES", 10)
        yield


@pytest.mark.parametrize("kind", IDS)
@pytest.mark.parametrize("wait", ["events and polling", "polling", None], ids=str)
def test_an_id_that_is_a_piece_of_the_key_is_neither_kept_nor_shown(
    kind: str, wait: str | None, run: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Echo(IDS[kind]) as echo, patience_of(monkeypatch):
        run(echo, edit(wait), *asking("job-1"))


@pytest.mark.parametrize("status", STATUSES, ids=lambda status: "the key" if status == KEY else status)
def test_a_row_that_holds_the_key_in_every_field_is_told_without_it(
    status: str, run: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Echo(status=status) as echo, patience_of(monkeypatch):
        monkeypatch.setattr("kontext_bridge.oxen.jobs.waiting.LONGEST_PAUSE", 0.3)
        # the history waits five minutes for a job that is under way, the others five seconds at least
        short = Terms(seconds=1)
        monkeypatch.setattr(listing, "Batch", lambda session, decode: Batch(session, decode, short))
        for module in orders, runs:
            monkeypatch.setattr(module, "Terms", lambda **asked: Terms(**{**asked, "seconds": 1}))
        run(echo, edit("polling"), *asking("job-1"))


@pytest.mark.parametrize("error", [400, 401, 402, 404, 409, 422, 426, 500, 503])
def test_an_error_that_holds_the_key_in_every_field_is_told_without_it(
    error: int, run: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Echo(error=error) as echo, patience_of(monkeypatch):
        run(echo, edit("polling"), edit("one blocking request"), *asking("job-1"))


def test_a_blocking_answer_that_holds_the_key_in_every_field_gives_its_picture_without_it(
    run: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Echo() as echo, patience_of(monkeypatch):
        run(echo, edit("one blocking request"), {"history": node("KontextHistory", pick=1, search="", count=20)})
    assert list((tmp_path / "out").glob("edit*.png"))


def test_an_upload_whose_address_holds_the_key_is_not_kept_with_it(
    run: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    workflow = edit("polling")
    workflow["edit"]["inputs"]["send_as"] = "Oxen upload"
    with Echo() as echo, patience_of(monkeypatch):
        run(echo, workflow)


@pytest.mark.parametrize("pasted", [KEY, PART, f"a {PART} b"], ids=["whole", "a piece", "a piece in a line"])
def test_a_key_that_was_pasted_for_a_generation_id_is_neither_kept_nor_shown_nor_sent(
    pasted: str, run: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Echo() as echo, patience_of(monkeypatch):
        for workflow in asking("PASTED")[1:4]:
            run(echo, workflow, pasted=pasted)
