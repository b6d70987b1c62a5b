"""The switch `keep` of the nodes that give edits: what was not edited is the picture's own, and nothing that was paid
for is lost over it.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from typing import Any

import pytest
import torch
from edited import HAT, NIGHT, SIZE, disc, make_edit, sources
from kontext_bridge import host
from kontext_bridge.headless.run import RunInterrupted
from kontext_bridge.host import Blocked
from kontext_bridge.imaging.codec import decode, encode, to_tensors
from kontext_bridge.imaging.errors import ImageError
from kontext_bridge.imaging.keep import engine, switch
from kontext_bridge.imaging.pixels import to_uint8
from kontext_bridge.nodes.remote import keeping
from kontext_bridge.oxen.api.client import Client
from kontext_bridge.oxen.errors import InvalidParameters
from kontext_bridge.oxen.jobs.ledger import Ledger
from patience import PATIENCE, timed

BIG = (200, 250)


@pytest.fixture(autouse=True)
def real_edits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kontext_bridge.standin.service.make_edit", make_edit)


def edit(bench: Any, image: torch.Tensor, **inputs: Any) -> tuple[torch.Tensor, dict[str, Any], torch.Tensor]:
    kept, info, raw = bench.run("KontextEdit", **{"image": image, "prompt": HAT, "keep": "auto", **inputs})
    return kept, json.loads(info), raw


def is_kept(picture: torch.Tensor, source: torch.Tensor) -> bool:
    """Whether the hat is there, and all but it and its surroundings the source's own."""
    far, hat = ~disc(*SIZE, grown=1.5), disc(*SIZE, grown=0.8)
    if picture.shape[:2] != source.shape[:2]:
        return False
    return torch.equal(picture[far], source[far]) and float((picture - source)[hat].abs().mean()) > 0.1


def test_only_what_was_edited_changes_and_the_raw_edit_is_given_beside_it(bench: Any) -> None:
    source = sources()
    kept, info, raw = edit(bench, source)
    assert is_kept(kept[0], source[0])
    assert raw.shape == (1, *BIG, 3)
    told = info["edits"][0]["keep"]
    assert told["verdict"] == "local" and "the rest is your own pixels" in told["says"]
    off, _, same = edit(bench, source, keep="off")
    assert torch.equal(off, raw) and torch.equal(same, raw) and len(bench.paid) == 1


def test_the_node_says_what_keep_found_in_a_line_for_each_edit_and_nothing_where_it_was_not_asked(bench: Any) -> None:
    given = {"image": sources(2), "prompt": HAT}
    said = bench.result("KontextEdit", keep="auto", **given).nodes["node"].ui["text"][0]
    assert [line.endswith("the rest is your own pixels") for line in said.splitlines()] == [True, True]
    assert "text" not in bench.result("KontextEdit", **given).nodes["node"].ui
    assert any("keeping what was not edited" in text for text in bench.heard.texts) is False


def test_a_batch_with_variations_is_kept_pair_by_pair_and_the_bar_counts_pairs(bench: Any) -> None:
    source = sources(2)
    kept, info, raw = edit(bench, source, variations=2)
    assert [is_kept(one, source[place // 2]) for place, one in enumerate(kept)] == [True] * 4
    assert len(raw) == len(info["edits"]) == 4
    assert bench.heard.fractions == sorted(bench.heard.fractions) and bench.heard.fractions[-1] == 1
    assert any("keeping what was not edited" in text for text in bench.heard.texts)


def test_a_whole_scene_is_handed_on_as_it_came(bench: Any) -> None:
    kept, info, raw = edit(bench, sources(), prompt=NIGHT)
    assert torch.equal(kept, raw)
    assert info["edits"][0]["keep"]["says"].startswith("the whole picture changed")


def test_alpha_is_the_sources_where_an_edit_is_kept(bench: Any) -> None:
    alpha = (torch.linspace(0.2, 1, SIZE[1]).expand(1, *SIZE)[..., None] * 255).round() / 255
    source = torch.cat([sources(), alpha], -1)
    kept, _, raw = edit(bench, source)
    assert torch.equal(kept[..., 3:], alpha) and raw.shape[3] == 3


def test_what_failed_at_the_service_shifts_no_pair(serve: Any) -> None:
    from kontext_bridge.standin import Fault

    bench, source = serve(run_fails=Fault("the worker died", times=1)), sources(3)
    kept, info, _ = edit(bench, source, if_some_fail="go on with what succeeded")
    came = [one["edit"] - 1 for one in info["edits"]]
    assert len(came) == 2 and [is_kept(one, source[place]) for place, one in zip(came, kept, strict=True)] == [True] * 2


def break_keep(monkeypatch: pytest.MonkeyPatch, error: BaseException, at: int = 0) -> None:
    """Have the pair number `at` fail."""
    seen = iter(range(99))

    def keep(*given: Any, **more: Any) -> Any:
        if next(seen) == at:
            raise error
        return engine.keep(*given, **more)

    monkeypatch.setattr(switch, "keep", keep)


@pytest.mark.parametrize(
    "error",
    [RuntimeError("not enough memory"), MemoryError(), ImageError("no such picture"), ZeroDivisionError(), OSError(28)],
    ids=repr,
)
def test_an_error_in_keep_hands_on_the_picture_that_was_paid_for_and_says_so(
    bench: Any, monkeypatch: pytest.MonkeyPatch, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    break_keep(monkeypatch, error)
    kept, info, raw = edit(bench, sources())
    assert torch.equal(kept, raw)
    says = info["edits"][0]["keep"]["says"]
    assert says.startswith("Keep failed (") and "handed on as it came" in says
    assert "handed on as it came" in caplog.text


def test_an_error_with_one_pair_costs_no_other(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    break_keep(monkeypatch, RuntimeError("odd"), at=1)
    source = sources(3)
    kept, info, raw = edit(bench, source)
    assert [is_kept(one, two) for one, two in zip(kept, source, strict=True)] == [True, False, True]
    wanted = torch.nn.functional.interpolate(raw[1:2].permute(0, 3, 1, 2), SIZE, mode="bicubic", antialias=True)
    assert torch.allclose(kept[1], wanted[0].permute(1, 2, 0).clamp(0, 1), atol=1e-6)
    assert [one["keep"]["verdict"] for one in info["edits"]] == ["local", "failed", "local"]


def test_the_raw_picture_is_stored_before_keep_runs_and_is_owed_until_it_was_handed_over(
    bench: Any, home: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []

    def keep(*_: Any, **__: Any) -> Any:
        with contextlib.closing(Ledger(home)) as ledger:
            (record,) = ledger.recent(5)
        found.append((record.state.value, (home / "results" / record.file).is_file(), record.collected_at))
        raise RuntimeError("the power went")

    monkeypatch.setattr(switch, "keep", keep)
    edit(bench, sources())
    assert found == [("done", True, None)]


def test_cancel_within_a_pair_ends_the_node_soon_and_the_next_run_pays_nothing(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = threading.Event()

    def keep(*_: Any, check: Any, **__: Any) -> Any:
        host.request_interrupt()
        try:
            while True:
                check()
                time.sleep(0.01)
        finally:
            ended.set()

    with monkeypatch.context() as patched:
        patched.setattr(switch, "keep", keep)
        with timed() as took, pytest.raises(RunInterrupted):
            bench.result("KontextEdit", image=sources(2), prompt=HAT, keep="auto")
        assert ended.wait(PATIENCE)
        assert took.own < 3
    source = sources(2)
    kept, *_ = edit(bench, source, result="always new")
    assert len(bench.paid) == 2 and [is_kept(one, two) for one, two in zip(kept, source, strict=True)] == [True] * 2


def test_what_was_submitted_is_collected_and_kept_with_its_pictures_connected(bench: Any) -> None:
    source = sources(2)
    job, ids = bench.submit(source, output_format="png", variations=2)
    given = {"job": [job], "keep": "auto"}
    kept, info, raw, _ = bench.run("KontextCollect", source=source, **given)
    assert [is_kept(one, source[place // 2]) for place, one in enumerate(kept)] == [True] * 4
    assert raw.shape == (4, *BIG, 3) and json.loads(info)["edits"][3]["keep"]["verdict"] == "local"
    kept, *_ = bench.run("KontextCollect", generation_ids=ids[3], source=source[1:], keep="auto")
    assert is_kept(kept[0], source[1]) and len(bench.paid) == 4


def test_collecting_to_keep_without_the_pictures_is_refused_in_words_before_anything_is_fetched(bench: Any) -> None:
    job, _ = bench.submit(sources(2), output_format="png")
    asked = len(bench.server.requests)
    with pytest.raises(InvalidParameters, match=r"Connect them to source, or set keep to off\. Nothing was fetched"):
        bench.run("KontextCollect", job=[job], keep="auto")
    with pytest.raises(InvalidParameters, match=r"source has 3 pictures for 2 edits.*\. Nothing was fetched\.$"):
        bench.run("KontextCollect", job=[job], keep="auto", source=sources(3))
    with pytest.raises(ImageError, match=r"NaN.*\. Nothing was fetched\.$"):
        bench.run("KontextCollect", job=[job], keep="auto", source=sources(2) * float("nan"))
    with pytest.raises(ImageError, match=r"An IMAGE is .*\. Nothing was fetched\.$"):
        bench.run("KontextCollect", job=[job], keep="auto", source=sources(2)[0])
    assert len(bench.server.requests) == asked


def test_the_history_gives_the_kept_picture_with_its_source_and_the_raw_one_always(bench: Any) -> None:
    source = sources()
    _, _, raw = edit(bench, source, keep="off")
    image, table, _, same, _ = bench.run("KontextHistory")
    assert torch.equal(image, raw) and torch.equal(same, raw)
    result = bench.result("KontextHistory", source=source, keep="auto").nodes["node"]
    kept, told, _, same, _ = (column[0] for column in result.outputs)
    assert is_kept(kept[0], source[0]) and torch.equal(same, raw) and told == table
    assert result.ui["text"][0].splitlines()[-1].endswith("the rest is your own pixels")


@pytest.mark.parametrize(("given", "words"), [({}, "Connect them to source"), ({"source": 2}, "2 pictures for 1 edit")])
def test_a_history_that_cannot_keep_still_gives_table_and_raw_picture(bench: Any, given: Any, words: str) -> None:
    _, _, raw = edit(bench, sources(), keep="off")
    more = {name: sources(count) for name, count in given.items()}
    image, table, _, same, _ = (
        column[0] for column in bench.result("KontextHistory", keep="auto", **more).nodes["node"].outputs
    )
    assert isinstance(image, Blocked) and words in str(image.message)
    assert "Nothing was fetched" not in str(image.message), "it was"
    assert str(image.message).endswith("raw gives the edit as it came; nothing is paid.")
    assert torch.equal(same, raw) and "1 edit in all" in table


@pytest.mark.parametrize("node", ["KontextEdit", "KontextCollect", "KontextHistory"])
def test_another_word_for_keep_is_refused(bench: Any, node: str) -> None:
    given: dict[str, Any] = {"KontextEdit": {"image": sources(), "prompt": HAT}}.get(node, {})
    if node == "KontextCollect":
        given = {"generation_ids": "0" * 32}
    with pytest.raises(Exception, match="keep"):
        bench.run(node, keep=["always"], **given)
    assert bench.paid == []


def test_pictures_that_the_host_made_in_inference_mode_are_kept_like_others(bench: Any) -> None:
    with torch.inference_mode():
        source = sources()
    kept, info, _ = edit(bench, source)
    assert is_kept(kept[0], source[0]) and info["edits"][0]["keep"]["verdict"] == "local"


def test_edits_that_were_not_submitted_shift_no_pair_when_the_others_are_collected(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of eight four are refused, so that the four pictures could be taken for those of the four that came; of three
    one, so that two came of three pictures."""
    send = Client.enqueue
    monkeypatch.setenv("KONTEXT_BRIDGE_MAX_IN_FLIGHT", "1")
    for count, variations, refused in ((4, 2, 4), (3, 1, 1)):
        asked = iter(range(99))

        def enqueue(*one: Any, asked: Any = asked, refused: int = refused, **more: Any) -> str:
            if next(asked) < refused:
                raise InvalidParameters("Not this one.")
            return send(*one, **more)

        monkeypatch.setattr(Client, "enqueue", enqueue)
        source = sources(count)
        more = {"output_format": "png", "variations": variations, "seed": count * 10}
        job, ids = bench.submit(source, if_some_fail="go on with what succeeded", **more)
        assert len(ids) == count * variations - refused
        kept, *_ = bench.run("KontextCollect", job=[job], keep="auto", source=source)
        own = [source[(refused + place) // variations] for place in range(len(ids))]
        assert [is_kept(one, two) for one, two in zip(kept, own, strict=True)] == [True] * len(ids)
    kept, *_ = bench.run("KontextCollect", job=[job], keep="auto", source=source[1:])
    assert [is_kept(one, two) for one, two in zip(kept, source[1:], strict=True)] == [True] * 2


@pytest.mark.parametrize("at", ["resized", "device"])
def test_memory_that_ends_around_keep_costs_no_picture(bench: Any, monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    """Before the first pair, where results differ in size, and when what was kept goes back to the raw one's device."""
    if at == "resized":
        sizes = iter((1, 2))
        given = make_edit
        monkeypatch.setattr(
            "kontext_bridge.standin.service.make_edit",
            lambda *one: smaller(given(*one), next(sizes)),
        )
        monkeypatch.setattr(keeping, "to_tensors", out_of_memory)
    else:
        stack = switch._stacked

        def stacked(*one: Any) -> Any:
            image = stack(*one)
            image.to = out_of_memory
            return image

        monkeypatch.setattr(switch, "_stacked", stacked)
    kept, info, raw = edit(bench, sources(2))
    assert torch.equal(kept, raw) and len(bench.paid) == 2
    assert all(one["keep"]["verdict"] == "failed" for one in info["edits"])


def test_the_note_on_sizes_says_of_which_output_it_speaks(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = iter((1, 2, 1))
    monkeypatch.setattr("kontext_bridge.standin.service.make_edit", lambda *one: smaller(make_edit(*one), next(sizes)))
    break_keep(monkeypatch, RuntimeError("odd"), at=2)
    monkeypatch.setenv("KONTEXT_BRIDGE_MAX_IN_FLIGHT", "1")
    kept, info, raw = edit(bench, sources(3))
    assert kept.shape[1:3] == SIZE and raw.shape[1:3] == BIG
    assert info["note"] == (
        "The results differ in size; in raw number 2 brought to 250x200, the first one's size. "
        "image is 200x160, as before the edit. In image number 3 brought to 200x160, as those that could be kept are."
    )
    assert [one["resized"] for one in info["edits"]] == [False, False, True]


def test_where_nothing_was_kept_the_note_on_sizes_is_the_raw_ones(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = iter((1, 2))
    monkeypatch.setattr("kontext_bridge.standin.service.make_edit", lambda *one: smaller(make_edit(*one), next(sizes)))
    monkeypatch.setenv("KONTEXT_BRIDGE_MAX_IN_FLIGHT", "1")
    kept, info, raw = edit(bench, sources(2), prompt=NIGHT)
    assert kept.shape == raw.shape and [one["resized"] for one in info["edits"]] == [False, True]
    assert info["note"] == "The results differ in size; number 2 brought to 250x200, the first one's size."


def out_of_memory(*_: Any, **__: Any) -> Any:
    raise RuntimeError("not enough memory")


def smaller(data: bytes, times: int) -> bytes:
    picture = to_tensors([decode(data)]).image[0]
    return encode(to_uint8(picture[::times, ::times].contiguous())).data
