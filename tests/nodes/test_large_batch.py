"""What a large batch holds in memory, how often its pictures are worked on, and that the event loop does none of it."""

from __future__ import annotations

import sys
import threading
import tracemalloc
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from kontext_bridge.imaging import codec, masks, pixels
from kontext_bridge.imaging.stack import Stack
from kontext_bridge.nodes.remote import orders, runs
from kontext_bridge.oxen.errors import InvalidParameters

# What takes its time where pictures are large.
HEAVY = {
    one.__code__
    for one in (
        pixels._check_values,
        pixels.to_uint8,
        pixels.from_uint8,
        pixels.digest,
        codec.encode,
        codec.decode,
        masks.is_empty,
    )
}
SIDE = 160
ONE = SIDE * SIDE * 3


def noise(count: int) -> torch.Tensor:
    """Pictures that no coding makes small."""
    return torch.randint(0, 256, (count, SIDE, SIDE, 3), generator=torch.Generator().manual_seed(1)).div(255)


def on_the_loop(work: Callable[[], Any]) -> list[str]:
    """Which heavy work this thread does, on which the event loop runs."""
    done = []

    def called(frame: Any, event: str, _: Any) -> None:
        if event == "call" and frame.f_code in HEAVY:
            done.append(frame.f_code.co_name)

    sys.setprofile(called)
    try:
        work()
    finally:
        sys.setprofile(None)
    return done


def test_the_event_loop_works_on_no_picture(bench: Any, images: Any) -> None:
    marked = torch.ones(2, 24, 32)
    own = {"model": "gpt-image-2", "prompt": "a hat", "model.mask": marked}
    own["model.references.reference_0"] = images(1)
    assert on_the_loop(lambda: bench.edit(images(2), keep="auto")) == []
    assert on_the_loop(lambda: bench.run("OxenEdit", image=images(2), **own)) == []
    job, _ = bench.submit(images(2), prompt="another")
    assert on_the_loop(lambda: bench.run("KontextCollect", job=[job], source=images(2), keep="auto")) == []
    assert on_the_loop(lambda: bench.run("KontextImageToURI", image=images(2))) == []
    uri = bench.run("KontextImageToURI", image=images(2))[0]
    assert on_the_loop(lambda: bench.run("KontextURIToImage", uri=uri)) == []


def test_a_batch_is_neither_held_as_8_bit_nor_decoded_whole(
    bench: Any, home: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At its end, where all of it has come: what is held beside the tensors is what two edits need."""
    home.mkdir(parents=True)
    (home / "settings.toml").write_text("max_in_flight = 2\n")
    held = []
    take = Stack.take

    def taken(self: Stack, places: Any) -> Any:
        ours = [tracemalloc.Filter(True, f"*/imaging/{name}.py") for name in ("pixels", "decoders", "codec", "stack")]
        ours += [tracemalloc.Filter(True, f"*/imaging/{name}.py") for name in ("png", "deflate", "uri")]
        snapshot = tracemalloc.take_snapshot().filter_traces(ours)
        # the mask is the one tensor that numpy gives
        held.append(sum(one.size for one in snapshot.statistics("filename")) - self._room[1].nbytes)  # type: ignore[index]
        return take(self, places)

    monkeypatch.setattr(Stack, "take", taken)
    source = noise(12)
    tracemalloc.start()
    try:
        bench.edit(source, output_format="png")
    finally:
        tracemalloc.stop()
    assert held[0] < 3 * ONE, f"{held[0] / ONE:.1f} pictures"


def test_each_picture_is_packed_once_and_unpacked_once(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    done: Counter[str] = Counter()
    guard = threading.Lock()

    def counted(module: Any, name: str) -> None:
        work = getattr(module, name)

        def call(*args: Any, **more: Any) -> Any:
            with guard:
                done[name] += 1
            return work(*args, **more)

        monkeypatch.setattr(module, name, call)

    counted(orders, "encode")
    counted(codec, "decode")
    bench.edit(noise(3), variations=2)
    assert done == {"encode": 3, "decode": 6}
    done.clear()
    bench.edit(noise(3), variations=2)
    assert done == {"decode": 6}, "what is there is not packed again"


def test_a_picture_that_another_node_changes_meanwhile_is_not_sent_under_the_old_name(
    bench: Any, images: Any, home: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.mkdir(parents=True)
    (home / "settings.toml").write_text("max_in_flight = 1\n")
    source = images(2)
    decode = runs.decode

    def painted_over(data: bytes) -> Any:
        source[1] = 0.5
        return decode(data)

    monkeypatch.setattr(runs, "decode", painted_over)
    with pytest.raises((InvalidParameters, Exception), match="changed by another node"):
        bench.edit(source)
    assert len(bench.paid) == 1
