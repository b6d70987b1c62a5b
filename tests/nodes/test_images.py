from __future__ import annotations

import base64
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from kontext_bridge.imaging.codec import EncodedImage
from kontext_bridge.imaging.errors import ImageError
from kontext_bridge.oxen.errors import InvalidParameters, OxenError
from kontext_bridge.standin import Fault
from kontext_bridge.standin.picture import bomb

FORMATS = ["png", "webp lossless"]


@pytest.fixture
def mask() -> torch.Tensor:
    """A MASK that fits `images(2)`, with every kind of value on the 8-bit grid."""
    return torch.linspace(0, 255, 2 * 24 * 32).round().div(255).reshape(2, 24, 32)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    """A plain web server of this machine, for the files in `tmp_path`."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(tmp_path))

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("format", FORMATS)
def test_a_batch_with_its_mask_comes_back_from_uris_bit_for_bit(
    bench: Any, images: Any, mask: torch.Tensor, format: str
) -> None:
    text = bench.run("KontextImageToURI", image=images(2), mask=mask, format=format)[0]
    assert len(text.splitlines()) == 2 and text.startswith("data:image/")
    image, back = bench.run("KontextURIToImage", uri=text)
    assert torch.equal(image, images(2)) and torch.equal(back, mask)
    assert bench.server.requests == []


@pytest.mark.parametrize("format", FORMATS)
def test_a_batch_with_its_mask_comes_back_from_bytes_bit_for_bit(
    bench: Any, images: Any, mask: torch.Tensor, format: str
) -> None:
    files = bench.run("KontextEncodeImage", image=images(2), mask=mask, format=format)[0]
    assert [(file.width, file.height) for file in files] == [(32, 24)] * 2
    image, back = bench.run("KontextDecodeImage", bytes=[files])
    assert torch.equal(image, images(2)) and torch.equal(back, mask)


def test_the_alpha_of_an_rgba_image_comes_back_as_its_mask(bench: Any, images: Any) -> None:
    files = bench.run("KontextEncodeImage", image=images(1, 24, 32, 4))[0]
    image, mask = bench.run("KontextDecodeImage", bytes=[files])
    assert torch.equal(image, images(1, 24, 32, 4)[..., :3])
    torch.testing.assert_close(mask, 1 - images(1, 24, 32, 4)[..., 3], rtol=0, atol=1e-6)


def test_a_picture_without_alpha_has_a_mask_of_zeros_of_its_own_size(bench: Any, images: Any) -> None:
    text = bench.run("KontextImageToURI", image=images())[0]
    _, mask = bench.run("KontextURIToImage", uri=text)
    assert mask.shape == (1, 24, 32) and not mask.any()


def test_the_empty_mask_that_a_loaded_picture_without_alpha_has_is_no_obstacle(bench: Any, images: Any) -> None:
    assert bench.run("KontextImageToURI", image=images(), mask=torch.zeros(1, 64, 64), format="jpg")


def test_pictures_of_unequal_size_come_at_the_first_ones_size(bench: Any, images: Any) -> None:
    uris = [bench.run("KontextImageToURI", image=images(1, *size))[0] for size in ((24, 32), (48, 16))]
    image, mask = bench.run("KontextURIToImage", uri="\n\n".join(uris) + "\n")
    assert image.shape == (2, 24, 32, 3) and mask.shape == (2, 24, 32)


def test_an_address_of_this_machine_is_fetched_only_where_the_settings_allow_it(
    bench: Any, images: Any, site: str, tmp_path: Path, monkeypatch: Any
) -> None:
    uri = bench.run("KontextImageToURI", image=images())[0]
    (tmp_path / "a.png").write_bytes(base64.b64decode(uri.partition(",")[2]))
    with pytest.raises(Exception, match=r"allow_private_urls"):
        bench.run("KontextURIToImage", uri=f"{site}/a.png")
    monkeypatch.setenv("KONTEXT_BRIDGE_ALLOW_PRIVATE_URLS", "true")
    image, _ = bench.run("KontextURIToImage", uri=f"{site}/a.png\n{uri}")
    assert torch.equal(image, images().repeat(2, 1, 1, 1))
    with pytest.raises(Exception, match=r"/b\.png answers with HTTP 404"):
        bench.run("KontextURIToImage", uri=f"{site}/b.png?signature=x")


def test_a_uri_on_the_service_itself_is_fetched_without_the_key(bench: Any, images: Any) -> None:
    uri = bench.run("KontextImageToURI", image=images(), send_as="Oxen upload")[0]
    assert uri.startswith(bench.server.url)
    before = len(bench.server.requests)
    image, _ = bench.run("KontextURIToImage", uri=uri)
    assert torch.equal(image, images())
    assert [request.bearer.value for request in bench.server.requests[before:]] == ["none"]


def wrapped(text: str, width: int = 76) -> str:
    return "\r\n".join(text[at : at + width] for at in range(0, len(text), width))


def test_data_uris_wrapped_into_lines_are_read_each_as_one(bench: Any, images: Any) -> None:
    first, second = bench.run("KontextImageToURI", image=images(2))[0].splitlines()
    image, _ = bench.run("KontextURIToImage", uri=f"{wrapped(first)}\n\n{wrapped(second.rstrip('='), 64)}\n")
    assert torch.equal(image, images(2))


@pytest.mark.parametrize("spelling", [str, wrapped, lambda text: f"\n {text} \n"], ids=["plain", "wrapped", "blanks"])
def test_bare_base64_is_named_with_what_to_put_before_it(bench: Any, images: Any, spelling: Any) -> None:
    bare = bench.run("KontextImageToURI", image=images())[0].partition(",")[2]
    with pytest.raises(InvalidParameters, match=r"bare base64.*Put data:image/png;base64, before it") as raised:
        bench.run("KontextURIToImage", uri=spelling(bare))
    assert len(str(raised.value)) < 300 and bench.server.requests == []


def test_what_to_do_about_a_picture_that_is_too_large_fits_where_it_came_from(
    bench: Any, site: str, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setenv("KONTEXT_BRIDGE_ALLOW_PRIVATE_URLS", "true")
    (tmp_path / "a.png").write_bytes(bomb())
    with pytest.raises(ImageError, match=r"Picture 1: .*60000x60000.*address of a smaller copy") as of_a_link:
        bench.run("KontextURIToImage", uri=f"{site}/a.png")
    with pytest.raises(ImageError, match=r"Picture 1: .*60000x60000.*Scale it down first"):
        bench.run("KontextURIToImage", uri="data:image/png;base64," + base64.b64encode(bomb()).decode())
    with pytest.raises(ImageError, match=r"Picture 1: .*60000x60000.*before it becomes bytes"):
        bench.run("KontextDecodeImage", bytes=[(EncodedImage(bomb(), "image/png", 8, 8),)])
    assert "Scale" not in str(of_a_link.value)


@pytest.mark.parametrize("fault", ["result_bomb", "result_truncated", "result_html"])
def test_a_result_that_cannot_be_read_is_never_told_to_be_scaled_down_or_saved_anew(
    serve: Any, images: Any, monkeypatch: Any, fault: str
) -> None:
    monkeypatch.setattr("kontext_bridge.oxen.jobs.results._ROUNDS", 1)
    bench = serve(**{fault: Fault(times=1)})
    with pytest.raises(OxenError, match="finished and paid for") as raised:
        bench.edit(images())
    said = str(raised.value).lower()
    assert not any(advice in said for advice in ("scale it", "save it", "saved anew", "convert it", "smaller"))


def test_a_link_to_what_is_no_picture_says_where_to_look(
    bench: Any, site: str, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setenv("KONTEXT_BRIDGE_ALLOW_PRIVATE_URLS", "true")
    (tmp_path / "a.png").write_bytes(b"<!DOCTYPE html><html>sign in</html>")
    with pytest.raises(ImageError, match=r"Picture 1: This is HTML.*Open the address in a browser"):
        bench.run("KontextURIToImage", uri=f"{site}/a.png")


def test_a_broken_uri_is_named_by_its_number(bench: Any, images: Any) -> None:
    whole = bench.run("KontextImageToURI", image=images())[0]
    with pytest.raises(ImageError, match=r"Picture 2: The data URI says base64.*Copy the whole URI again"):
        bench.run("KontextURIToImage", uri=f"{whole}\ndata:image/png;base64,*")


@pytest.mark.parametrize("form", ['"{}"', "'{}',", "\ufeff{}", "\u200b {} \u200b"], ids=ascii)
def test_a_uri_with_the_quotes_of_json_or_an_unseen_mark_around_it_is_read(bench: Any, images: Any, form: str) -> None:
    lines = bench.run("KontextImageToURI", image=images(2))[0].splitlines()
    image, _ = bench.run("KontextURIToImage", uri="\n".join(map(form.format, lines)))
    assert torch.equal(image, images(2))


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ("url({0})", r"There is a data URI behind 'url\(': delete all that stands around it"),
        ('<img alt="an ox" src="{0}">', r"There is a data URI behind .*: delete all that stands around it"),
        ('["{0}", "{0}"]', r"There is a data URI behind '\[\"': delete all"),
        ("{0},{0}", "Another data URI begins in it: give one a line"),
        ("{0} {0}", "Another data URI begins in it: give one a line"),
    ],
)
def test_what_stands_around_a_data_uri_is_named_and_nothing_that_is_there_is_said_to_lack(
    bench: Any, images: Any, form: str, words: str
) -> None:
    uri = bench.run("KontextImageToURI", image=images())[0]
    with pytest.raises((ImageError, InvalidParameters), match=words) as raised:
        bench.run("KontextURIToImage", uri=form.format(uri))
    assert "put data: before it" not in str(raised.value) and len(str(raised.value)) < 400


def no_memory(*_: Any, **__: Any) -> Any:
    raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory")


def test_pictures_for_which_there_is_no_memory_are_told_in_words(
    bench: Any, images: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, files = (bench.run(node, image=images(2))[0] for node in ("KontextImageToURI", "KontextEncodeImage"))
    monkeypatch.setattr(torch, "empty", no_memory)
    for node, given in (("KontextURIToImage", {"uri": uri}), ("KontextDecodeImage", {"bytes": [files]})):
        with pytest.raises(ImageError, match=r"too little memory left for 2 x 32x24 pixels\. Read fewer"):
            bench.run(node, **given)
