"""Issue of a bad input at each node: one error that names what is wrong and what to do, and nothing sent in vain."""

from __future__ import annotations

import base64
import math
import struct
import zlib
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from kontext_bridge.headless.graph import WorkflowError
from kontext_bridge.imaging.codec import EncodedImage
from kontext_bridge.imaging.errors import ImageError
from kontext_bridge.oxen.errors import OxenError
from kontext_bridge.standin import Fault
from kontext_bridge.standin.picture import bomb

KontextError = (OxenError, ValueError)
EDITS = ["KontextEdit", "KontextSubmit"]
PICTURES = [*EDITS, "OxenEdit", "OxenSubmit"]


def spoilt(images: Any, value: float) -> torch.Tensor:
    image = images(3)
    image[1, 2, 3, 0] = value
    return image


@pytest.mark.parametrize("node", EDITS)
@pytest.mark.parametrize("prompt", ["", "  \n "])
def test_an_empty_prompt_is_refused_before_anything_runs(bench: Any, images: Any, node: str, prompt: str) -> None:
    with pytest.raises(WorkflowError, match=r"prompt is empty: say in a sentence what to change"):
        bench.run(node, image=images(), prompt=prompt)
    assert bench.server.requests == []


@pytest.mark.parametrize("node", EDITS)
def test_an_empty_prompt_over_a_link_is_refused_with_nothing_sent(bench: Any, images: Any, node: str) -> None:
    with pytest.raises(OxenError, match=r"prompt is empty.*Nothing was sent"):
        bench.run(node, image=images(), prompt=[""])
    assert bench.server.requests == []


@pytest.mark.parametrize("node", PICTURES)
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        pytest.param(lambda images: images(1, 0, 32), r"nothing in it.*\[1, 0, 32, 3\]", id="no height"),
        pytest.param(lambda images: images(1, 32, 0), r"nothing in it", id="no width"),
        pytest.param(lambda images: images(0), r"nothing in it", id="no pictures"),
        pytest.param(lambda images: spoilt(images, math.nan), r"Picture 2 of 3 .*NaN or infinite.*fp32", id="NaN"),
        pytest.param(lambda images: spoilt(images, math.inf), r"Picture 2 of 3 .*NaN or infinite", id="infinity"),
        pytest.param(lambda images: images(1, 8, 8, 5), r"5 channels; 1 \(grey\), 3", id="five channels"),
        pytest.param(lambda images: images(1, 8, 8, 3)[0], r"\[batch, height, width, channels\]", id="no batch"),
    ],
)
def test_a_picture_that_is_none_is_named_and_nothing_is_sent(
    bench: Any, images: Any, node: str, spoil: Any, words: str
) -> None:
    with pytest.raises(KontextError, match=rf"{words}.* Nothing was sent\.$"):
        bench.run(node, image=spoil(images), prompt="a hat")
    assert bench.server.requests == []


@pytest.mark.parametrize("node", EDITS)
@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("aspect_ratio", "16:10", "aspect_ratio"),
        ("steps", 3, "steps"),
        ("steps", 51, "steps"),
        ("guidance", 10.5, "guidance"),
        ("variations", 5, "variations"),
        ("seed", -1, "seed"),
        ("output_format", "jpeg", "output_format"),
        ("result", "sometimes", "result"),
    ],
)
def test_a_widget_out_of_its_range_is_refused_by_name_also_over_a_link(
    bench: Any, images: Any, node: str, name: str, value: Any, words: str
) -> None:
    with pytest.raises(WorkflowError, match=words):
        bench.run(node, image=images(), prompt="a hat", **{name: value})
    with pytest.raises(OxenError, match=rf"{words} is .*it takes .*Nothing was sent"):
        bench.run(node, image=images(), prompt="a hat", **{name: [value]})
    assert bench.server.requests == []


@pytest.mark.parametrize("prompt", ["a hat\0", "\x1b[2J", "half \udc80", "x" * 2_000_000], ids=ascii)
def test_a_prompt_that_no_service_should_get_is_refused_before_anything_runs(
    bench: Any, images: Any, prompt: str
) -> None:
    with pytest.raises(WorkflowError, match=r"The prompt h"):
        bench.run("KontextEdit", image=images(), prompt=prompt)
    with pytest.raises(OxenError, match=r"The prompt h.*Nothing was sent"):
        bench.run("KontextEdit", image=images(), prompt=[prompt])
    assert bench.server.requests == []


@pytest.mark.parametrize(
    ("node", "name"),
    [
        ("KontextEdit", "prompt"),
        ("KontextSubmit", "prompt"),
        ("KontextEdit", "namespace"),
        ("KontextCollect", "generation_ids"),
        ("KontextQueueStatus", "generation_ids"),
        ("KontextCancel", "generation_ids"),
        ("KontextHistory", "search"),
        ("KontextModelInfo", "model"),
        ("KontextURIToImage", "uri"),
    ],
)
@pytest.mark.parametrize("value", [["a", "b"], 7, {"a": 1}], ids=str)
def test_a_value_that_is_no_text_is_refused_by_the_name_of_its_socket(
    bench: Any, images: Any, node: str, name: str, value: Any
) -> None:
    pictures = {"image": images()} if node in ("KontextEdit", "KontextSubmit") else {}
    prompt = {"prompt": "a hat"} if pictures else {}
    with pytest.raises(OxenError, match=rf"{name} takes a text.*Nothing was sent"):
        bench.run(node, **{**pictures, **prompt, name: [value]})
    assert bench.server.requests == []


@pytest.mark.parametrize("value", [0, 100])
def test_a_linked_number_of_variations_is_checked_before_it_is_paid_for(bench: Any, images: Any, value: int) -> None:
    with pytest.raises(OxenError, match=r"variations is .*it takes 1 to 4. Nothing was sent"):
        bench.run("KontextEdit", image=images(), prompt="a hat", variations=[value])
    assert bench.server.requests == []


def test_a_batch_too_large_for_one_go_is_refused_with_its_number(bench: Any, images: Any) -> None:
    with pytest.raises(OxenError, match=r"65 pictures with 4 variations are 260 edits; at most 256.*Split the batch"):
        bench.run("KontextEdit", image=images(65, 4, 4), prompt="a hat", variations=4)
    assert bench.server.requests == []


@pytest.mark.parametrize("node", EDITS)
def test_no_key_is_said_with_every_place_to_put_one_and_nothing_is_sent(
    bench: Any, images: Any, node: str, monkeypatch: Any
) -> None:
    monkeypatch.delenv("OXEN_API_KEY")
    with pytest.raises(OxenError, match=r"^No Oxen.ai key: Settings > Kontext Bridge\..*OXEN_API_KEY.*oxen_api_key"):
        bench.run(node, image=images(), prompt="a hat")
    assert bench.server.requests == []


@pytest.mark.parametrize("node", EDITS)
def test_a_wrong_key_is_said_once_for_a_whole_batch_and_never_shown(
    bench: Any, images: Any, node: str, monkeypatch: Any
) -> None:
    monkeypatch.setenv("OXEN_API_KEY", "SFMyNTY.another-key-of-the-usual-length")
    with pytest.raises(OxenError, match=r"All 3 edits failed: .*does not accept the API key.*Check the key") as raised:
        bench.run(node, image=images(3), prompt="a hat")
    assert "another-key" not in str(raised.value)
    assert bench.server.billed == [] and str(raised.value).count("Check the key") == 1


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("empty_generations", "named no generation|without a picture"),
        ("html_reply", "an HTML page .*where JSON belongs.*OXEN_BASE_URL"),
        ("deep_json", "nested too deeply"),
        ("error_in_ok", "The model is not available right now"),
        ("out_of_credits", "no credits left.*Add credits"),
        ("error_text", "refused the request.*bad request"),
    ],
)
@pytest.mark.parametrize("wait", ["polling", "one blocking request"])
def test_an_answer_that_is_none_is_quoted_and_the_request_is_not_sent_again(
    serve: Any, images: Any, monkeypatch: Any, fault: str, words: str, wait: str
) -> None:
    monkeypatch.setattr("kontext_bridge.oxen.jobs.doubt._PAUSES", (0.0,))
    bench = serve(**{fault: True})
    with pytest.raises(OxenError, match=words):
        bench.edit(images(), wait=wait)
    assert len(bench.paid) == 1


@pytest.mark.parametrize("fault", [{"data_uri_refused": True}, {"body_limit": 2000}], ids=str)
@pytest.mark.parametrize("node", EDITS)
def test_a_service_that_refuses_data_uris_is_reported_with_the_way_around(
    serve: Any, monkeypatch: Any, node: str, fault: dict[str, Any]
) -> None:
    noise = torch.rand(1, 32, 32, 3, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr("kontext_bridge.oxen.jobs.doubt._PAUSES", (0.0,))
    bench = serve(**fault)
    with pytest.raises(OxenError, match=r"set send_as to Oxen upload"):
        bench.run(node, image=noise, prompt="a hat")
    assert bench.run(node, image=noise, prompt="another hat", send_as="Oxen upload", output_format="jpg")


@pytest.mark.parametrize("node", ["KontextCollect", "KontextQueueStatus"])
def test_a_generation_id_that_does_not_exist_is_named(bench: Any, node: str) -> None:
    with pytest.raises(
        OxenError, match=r"no such generation\. Check the id.*Generation 00000000-0000-4000-8000-000000000000\.$"
    ):
        bench.run(node, generation_ids="00000000-0000-4000-8000-000000000000")


def test_cancelling_an_id_that_does_not_exist_says_so_and_goes_on_with_the_others(bench: Any, images: Any) -> None:
    bench.server.hold()
    _, ids = bench.submit(images())
    text = bench.run("KontextCancel", generation_ids=f"no-such-id\n{ids[0]}")[0].splitlines()
    assert "no-such-id: Oxen.ai knows no such generation" in text[0] and text[0].count("no-such-id") == 1
    assert text[1] == f"{ids[0]}: cancelled"


def test_a_job_that_cannot_be_cancelled_does_not_keep_the_others_from_it(serve: Any, images: Any) -> None:
    bench = serve(cancel_error=Fault(True, times=1))
    bench.server.hold()
    _, ids = bench.submit(images(2))
    text = bench.run("KontextCancel", generation_ids="\n".join(ids))[0].splitlines()
    assert text[0].startswith(f"{ids[0]}: ") and "500" in text[0]
    assert text[1] == f"{ids[1]}: cancelled"


@pytest.mark.parametrize("node", ["KontextCollect", "KontextQueueStatus", "KontextCancel"])
@pytest.mark.parametrize("text", ["../../users/me", "https://hub.oxen.ai/x", "a%2fb", "é"])
def test_a_text_that_is_no_generation_id_is_named_and_nothing_is_sent(bench: Any, node: str, text: str) -> None:
    with pytest.raises(OxenError, match=r"is not a generation id. Give one a line"):
        bench.run(node, generation_ids=text)
    assert bench.server.requests == []


@pytest.mark.parametrize("node", ["KontextCollect", "KontextCancel"])
def test_without_a_job_and_without_ids_the_node_says_what_to_connect(bench: Any, node: str) -> None:
    with pytest.raises(OxenError, match=r"There is no job: connect Kontext Submit's job"):
        bench.run(node)
    assert bench.server.requests == []


def test_a_model_that_does_not_exist_is_named_with_the_one_that_does(bench: Any) -> None:
    with pytest.raises(OxenError, match=r"no model named 'flux-kontxt'; flux-kontext-dev is the default"):
        bench.run("KontextModelInfo", model="flux-kontxt")


def png_uri(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode()


def whole_png() -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes((1 + 8 * 3) * 8))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        pytest.param("data:image/png;base64,*not base64*", "says base64, but what follows is not", id="no base64"),
        pytest.param("data:image/png;base64", "no comma", id="no comma"),
        pytest.param("data:image/png;base64,", "no data", id="no data"),
        pytest.param(png_uri(whole_png()[:-20]), "Picture 1: ", id="truncated"),
        pytest.param(png_uri(bomb()), r"60000x60000.*Scale it down", id="a bomb"),
        pytest.param(png_uri(b"<html>"), "Picture 1: ", id="HTML"),
        pytest.param("", "no URI: give http", id="nothing"),
        pytest.param("file:///etc/passwd", "give an http or https URL.*file on disk use Load Image", id="a file"),
        pytest.param("/home/me/ox.png", "give an http or https URL.*file on disk use Load Image", id="a path"),
        pytest.param(r"C:\pictures\ox.png", "give an http or https URL.*file on disk use Load Image", id="Windows"),
        pytest.param("http://[::1", "not a URL that can be fetched", id="no URL"),
        pytest.param("http://user:secret@example.com/a.png", "without user name", id="a password"),
        pytest.param("http://127.0.0.1:9/a.png", "private, loopback.*allow_private_urls", id="this machine"),
        pytest.param("http://169.254.169.254/latest", "private, loopback", id="a cloud's own address"),
    ],
)
def test_a_uri_that_gives_no_picture_is_named_with_what_to_do(bench: Any, uri: str, words: str) -> None:
    with pytest.raises(KontextError, match=words) as raised:
        bench.run("KontextURIToImage", uri=uri)
    assert len(str(raised.value)) < 400
    assert bench.server.requests == []


def test_bytes_that_are_no_whole_picture_are_named_by_their_number(bench: Any) -> None:
    files = tuple(EncodedImage(data, "image/png", 8, 8) for data in (whole_png(), whole_png()[:-20]))
    with pytest.raises(KontextError, match=r"Picture 2: "):
        bench.run("KontextDecodeImage", bytes=[files])


@pytest.mark.parametrize("fault", ["result_truncated", "result_bomb", "result_html", "result_empty"])
def test_a_result_that_is_no_whole_picture_is_an_error_and_never_a_picture(
    serve: Any, images: Any, monkeypatch: Any, fault: str
) -> None:
    monkeypatch.setattr("kontext_bridge.oxen.jobs.results._ROUNDS", 1)
    bench = serve(**{fault: Fault(times=1)})
    with pytest.raises(OxenError, match=r"finished and paid for, but its picture could not be downloaded.*run again"):
        bench.edit(images())
    _, info = bench.edit(images())
    assert info["edits"][0]["how"] == "resumed"
    assert len(bench.server.billed) == 1


def test_a_mask_of_another_size_is_refused_with_both_sizes(bench: Any, images: Any) -> None:
    with pytest.raises(KontextError, match=r"mask is 4x4 and the picture 32x24"):
        bench.run("KontextImageToURI", image=images(), mask=torch.ones(1, 4, 4))


NOT_TEXT = [["a hat"], ("a", "b"), None, 7, {"prompt": "a hat"}, b"a hat"]


@pytest.mark.parametrize("value", NOT_TEXT, ids=repr)
@pytest.mark.parametrize(
    ("node", "name"),
    [
        ("KontextEdit", "prompt"),
        ("KontextEdit", "namespace"),
        ("KontextSubmit", "prompt"),
        ("KontextSubmit", "namespace"),
        ("KontextCollect", "generation_ids"),
        ("KontextQueueStatus", "generation_ids"),
        ("KontextCancel", "generation_ids"),
        ("KontextModelInfo", "model"),
        ("KontextHistory", "search"),
        ("KontextURIToImage", "uri"),
    ],
)
def test_what_is_no_text_on_a_text_input_is_told_in_words_and_nothing_is_sent(
    bench: Any, images: Any, node: str, name: str, value: Any
) -> None:
    given = {"prompt": "a hat", "image": images()} if node in EDITS else {}
    with pytest.raises(OxenError, match=rf"^{name} takes a text; what is connected gives it .*Nothing was sent"):
        bench.run(node, **{**given, name: [value]})
    assert bench.server.requests == []


@pytest.mark.parametrize(
    ("node", "name"),
    [
        ("KontextEdit", "prompt"),
        ("KontextEdit", "namespace"),
        ("KontextCollect", "generation_ids"),
        ("KontextModelInfo", "model"),
        ("KontextHistory", "search"),
        ("KontextURIToImage", "uri"),
    ],
)
def test_half_of_a_character_on_a_text_input_is_told_in_words(bench: Any, images: Any, node: str, name: str) -> None:
    given = {"prompt": "a hat", "image": images()} if node in EDITS else {}
    with pytest.raises(OxenError, match=rf"^The {name} holds half of a character.* at place 3; .*Nothing was sent"):
        bench.run(node, **{**given, name: ["a \ud800"]})
    assert bench.server.requests == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name in ("steps", "seed", "variations", "output_quality") for value in ([5], "5", 4.5)),
        *(("guidance", value) for value in ([2.5], "2.5", None)),
        ("timeout", [300]),
        ("disable_safety_checker", "yes"),
    ],
    ids=repr,
)
def test_what_is_no_number_on_a_number_input_is_told_in_words_and_nothing_is_sent(
    bench: Any, images: Any, name: str, value: Any
) -> None:
    with pytest.raises(OxenError, match=rf"^{name} takes .*; what is connected gives it .*Nothing was sent"):
        bench.run("KontextEdit", image=images(), prompt="a hat", **{name: [value]})
    assert bench.server.requests == []


def test_numbers_of_other_kinds_that_mean_the_same_are_taken(bench: Any, images: Any) -> None:
    pictures, info = bench.edit(images(), steps=[28.0], seed=[np.int64(5)], guidance=[np.float32(2.5)])
    assert pictures.shape[0] == 1 and info["edits"][0]["seed"] == 5


def test_what_is_no_job_on_a_job_input_is_told_in_words(bench: Any) -> None:
    with pytest.raises(OxenError, match="job takes what Kontext Submit gives"):
        bench.run("KontextCollect", job=["5ad0c1c6"])
    assert bench.server.requests == []


TOO_LONG = 10**5000


@pytest.mark.parametrize(
    "value", [10**400, -(10**400), TOO_LONG, Fraction(10**400)], ids=["+", "-", "long", "fraction"]
)
@pytest.mark.parametrize(
    "name", ["steps", "seed", "variations", "guidance", "timeout", "prompt", "aspect_ratio", "disable_safety_checker"]
)
def test_a_number_that_python_cannot_count_with_is_told_in_words(
    bench: Any, images: Any, name: str, value: Any
) -> None:
    with pytest.raises(OxenError, match=rf"^{name} .*Nothing was sent") as raised:
        bench.run("KontextEdit", image=images(), **{"prompt": "a hat", name: [value]})
    assert len(str(raised.value)) < 300 and bench.server.requests == []


@pytest.mark.parametrize("name", ["pick", "count"])
@pytest.mark.parametrize("value", [0, -1, -5, 1001, 2**63, 10**400])
def test_a_line_that_no_history_has_is_refused_and_not_counted_from_the_other_end(
    bench: Any, images: Any, name: str, value: int
) -> None:
    bench.edit(images())
    with pytest.raises(OxenError, match=rf"^{name} .*takes"):
        bench.run("KontextHistory", **{name: [value]})


@pytest.mark.parametrize("value", ["90", [90], None, math.nan, 10**400], ids=["text", "list", "none", "nan", "huge"])
@pytest.mark.parametrize("node", ["KontextImageToURI", "KontextEncodeImage"])
def test_a_quality_that_is_no_number_is_told_in_words(bench: Any, images: Any, node: str, value: Any) -> None:
    with pytest.raises(OxenError, match=r"^quality takes a whole number"):
        bench.run(node, image=images(), format="jpg", quality=[value])


@pytest.mark.parametrize(
    "value", [None, 7, b"bytes", "text", [1], (b"bytes",), ("text",), {}, torch.ones(2)], ids=lambda v: type(v).__name__
)
def test_what_is_no_bytes_of_ours_is_told_in_words(bench: Any, value: Any) -> None:
    with pytest.raises(OxenError, match=r"^bytes takes what Image to Bytes gives"):
        bench.run("KontextDecodeImage", bytes=[value])


@pytest.mark.parametrize(
    ("node", "name", "value"),
    [
        ("KontextPrepare", "megapixels", "1"),
        ("KontextPrepare", "megapixels", math.nan),
        ("KontextPrepare", "megapixels", math.inf),
        ("KontextPrepare", "megapixels", 1e6),
        ("KontextPrepare", "margin", [64]),
        ("KontextPrepare", "margin", None),
        ("KontextPrepare", "aspect_ratio", 16),
        ("KontextPrepare", "aspect_ratio", "1000000000:1"),
        ("KontextRestore", "canvas", "canvas"),
        ("KontextRestore", "canvas", None),
        ("KontextKeep", "change", "everything"),
        ("KontextKeep", "strength", math.nan),
        ("KontextKeep", "strength", "1"),
        ("KontextKeep", "strength", 2),
        ("KontextKeep", "feather", -5),
        ("KontextKeep", "feather", 65),
        ("KontextKeep", "feather", None),
    ],
)
def test_what_a_node_for_pictures_cannot_take_is_told_in_words(
    bench: Any, images: Any, node: str, name: str, value: Any
) -> None:
    pictures = {"source": images(), "edited": images()} if node == "KontextKeep" else {"image": images()}
    with pytest.raises(OxenError, match=rf"^{name} (takes|is) "):
        bench.run(node, **pictures, **{name: [value]})


@pytest.mark.parametrize(
    "spoil",
    [
        lambda image: image.to(torch.float8_e4m3fn),
        lambda image: image.to("meta"),
        lambda image: image.to_sparse(),
        lambda image: image.tolist(),
    ],
    ids=["fp8", "meta", "sparse", "list"],
)
@pytest.mark.parametrize("node", ["KontextEncodeImage", "KontextPrepare", "KontextKeep"])
def test_a_tensor_that_holds_no_picture_is_told_in_words(bench: Any, images: Any, node: str, spoil: Any) -> None:
    shape = {"aspect_ratio": "16:9"} if node == "KontextPrepare" else {}
    shape |= {"source": images()} if node == "KontextKeep" else {}
    name = "edited" if node == "KontextKeep" else "image"
    with pytest.raises(ImageError, match=r"The picture|An IMAGE is"):
        bench.run(node, **shape, **{name: [spoil(images())]})


@pytest.mark.parametrize(
    ("node", "name", "value"),
    [
        *(
            ("KontextEditLocal", name, value)
            for name in ("steps", "seed", "variations", "guidance")
            for value in ("5", [5])
        ),
        ("KontextEditLocal", "prompt", ["a hat"]),
        ("KontextEditLocal", "aspect_ratio", 16),
        *(("KontextSample", name, "16") for name in ("width", "height", "steps", "seed", "guidance", "cfg")),
        *(("KontextSample", "references.reference_0", value) for value in ("latent", {}, {"samples": None}, [1])),
        ("KontextLoRA", "strength", "1"),
        ("KontextLoRA", "file", ["a.safetensors"]),
        ("KontextLoadModel", "compute", ["auto"]),
        ("KontextLoadModel", "compile", "yes"),
    ],
    ids=str,
)
def test_the_local_nodes_tell_what_they_cannot_take_in_words(node: str, name: str, value: Any) -> None:
    from kontext_bridge.kontext.errors import BadRequest
    from kontext_bridge.nodes.local import work as edits

    latent = {"samples": torch.zeros(1, 16, 4, 4)}
    sampled = {"width": 16, "height": 16, "steps": 4, "guidance": 2.5, "seed": 1, "cfg": 1.0}
    edited = {"prompt": "a hat", "aspect_ratio": "1:1", "steps": 4, "guidance": 2.5, "seed": 1}
    with pytest.raises((OxenError, BadRequest), match=rf"^(references.)?{name.rpartition('.')[2]} (takes|is) "):
        if node == "KontextEditLocal":
            edits.edit(None, None, None, torch.zeros(1, 16, 16, 3), **{**edited, name: value})
        elif node == "KontextLoRA":
            edits.with_lora(None, **{"name": "x", "strength": 1.0, ("name" if name == "file" else name): value})
        elif node == "KontextLoadModel":
            edits.load(
                "x", **{"compute": "auto", "compiled": False, ("compiled" if name == "compile" else name): value}
            )
        elif name.startswith("references."):
            edits.latents({"reference_0": value})
        else:
            edits.sample(None, None, None, references=edits.latents({"x": latent}), **{**sampled, name: value})
