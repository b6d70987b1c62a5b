"""Who may set the key: ComfyUI's own page, by the browser's word, and no other page, form, user or path."""

from __future__ import annotations

import gzip
import json
import socket
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web
from kontext_bridge.routes import bodies, register
from served import KEY, Page, cors

ROUTE = "/kontext-bridge/key"
BODY = json.dumps({"key": KEY}).encode()
# What changes something, or asks the service: method, path and body.
CHANGES = [
    ("POST", ROUTE, {"key": KEY}),
    ("POST", f"/api{ROUTE}", {"key": KEY}),
    ("DELETE", ROUTE, None),
    ("POST", f"{ROUTE}/test", {}),
    ("POST", "/kontext-bridge/limits", {"usd_per_run": "1"}),
]
READS = [("GET", ROUTE, None), ("GET", "/kontext-bridge/limits", None)]


def refused(page: Page, method: str, path: str, body: Any, status: int = 403, **headers: Any) -> None:
    before = page.files()
    told, answer = page.ask(method, path, body, **headers)
    assert told == status, answer
    assert set(answer) == {"error"}
    assert page.files() == before


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: f"{change[0]} {change[1]}")
def test_a_change_that_names_no_origin_is_refused(page: Page, change: Any) -> None:
    refused(page, *change, without=("Origin",))


@pytest.mark.parametrize("change", [*CHANGES, *READS], ids=lambda change: f"{change[0]} {change[1]}")
@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "",
        "https://evil.example",
        "http://evil.example",
        "http://127.0.0.1",
        "http://127.0.0.1:1",
        "http://localhost:{port}",
        "http://127.0.0.1:{port}.evil.example",
        "http://127.0.0.1:{port}@evil.example",
        "http://evil.example@127.0.0.1:{port}",
        "http://127.0.0.1:{port}/",
        "http://127.0.0.1:{port}/path",
        "http://127.0.0.1:{port}#x",
        "http://127.0.0.1:{port}?x",
        "http://127.0.0.1:{port}\\x",
        "ftp://127.0.0.1:{port}",
        "file://127.0.0.1:{port}",
        "127.0.0.1:{port}",
        "http://127.0.0.1:{port} http://evil.example",
        ["http://127.0.0.1:{port}", "http://evil.example"],
        ["http://127.0.0.1:{port}", "http://127.0.0.1:{port}"],
    ],
    ids=str,
)
def test_a_request_of_another_origin_is_refused(page: Page, change: Any, origin: Any) -> None:
    values = [one.format(port=page.port) for one in ([origin] if isinstance(origin, str) else origin)]
    refused(page, *change, Origin=values)


@pytest.mark.parametrize("change", [*CHANGES, *READS], ids=lambda change: f"{change[0]} {change[1]}")
@pytest.mark.parametrize("site", ["cross-site", "same-site", "odd", "", ["same-origin", "cross-site"]], ids=str)
def test_what_the_browser_says_comes_from_another_site_is_refused(page: Page, change: Any, site: Any) -> None:
    refused(page, *change, Sec_Fetch_Site=site)


def test_what_is_typed_into_the_address_bar_may_read_and_not_change(page: Page) -> None:
    assert page.ask("GET", ROUTE, Sec_Fetch_Site="none")[0] == 200
    refused(page, "DELETE", ROUTE, None, Sec_Fetch_Site="none")


def test_a_browser_that_sends_no_fetch_metadata_is_judged_by_its_origin(page: Page) -> None:
    assert page.ask("POST", ROUTE, {"key": KEY}, without=("Sec-Fetch-Site",))[0] == 200
    assert page.ask("GET", ROUTE, without=("Sec-Fetch-Site",))[0] == 200


@pytest.mark.parametrize("middlewares", [[cors]], ids=["cors"])
@pytest.mark.parametrize("change", [*CHANGES, *READS], ids=lambda change: f"{change[0]} {change[1]}")
def test_comfyuis_cors_header_opens_nothing(page: Page, change: Any) -> None:
    origin = "https://evil.example"
    assert page.ask("OPTIONS", change[1], Origin=origin, Access_Control_Request_Method=change[0])[0] in {200, 405}
    refused(page, *change, Origin=origin, Sec_Fetch_Site="cross-site")
    refused(page, *change, Origin=origin, without=("Sec-Fetch-Site",))


@pytest.mark.parametrize(
    ("names", "fine"),
    [
        (("http://localhost:{port}", "localhost:{port}"), True),
        (("http://LOCALHOST:{port}", "localhost:{port}"), True),
        (("http://[::1]:{port}", "[::1]:{port}"), True),
        (("http://192.168.1.5:8188", "192.168.1.5:8188"), True),
        (("http://192.168.1.5", "192.168.1.5:80"), True),
        (("http://gpu-box:8188", "gpu-box:8188"), True),
        (("http://gpu.local:8188", "gpu.local:8188"), True),
        (("https://comfy.example.org", "comfy.example.org"), True),
        (("https://comfy.example.org", "comfy.example.org:443"), True),
        (("https://comfy.example.org", "comfy.example.org:80"), False),
        (("http://rebound.example.org:8188", "rebound.example.org:8188"), False),
        (("http://127.0.0.1.example.org:8188", "127.0.0.1.example.org:8188"), False),
        (("http://rebound.example.org.:8188", "rebound.example.org.:8188"), False),
        (("http://localhost.example.org", "localhost.example.org"), False),
    ],
    ids=str,
)
def test_a_public_name_without_https_may_be_a_strangers_and_is_refused(
    page: Page, names: tuple[str, str], fine: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin, host = (name.format(port=page.port) for name in names)
    if fine:
        assert page.ask("POST", ROUTE, {"key": KEY}, Origin=origin, Host=host)[0] == 200
        return
    refused(page, "POST", ROUTE, {"key": KEY}, Origin=origin, Host=host)
    if host.split(":")[-1] != "80":
        monkeypatch.setenv("KONTEXT_BRIDGE_ALLOW_KEY_PAGE", "true")
        assert page.ask("POST", ROUTE, {"key": KEY}, Origin=origin, Host=host)[0] == 200


@pytest.mark.parametrize("method", ["PUT", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "HEAD"])
@pytest.mark.parametrize("path", [ROUTE, f"{ROUTE}/test", "/kontext-bridge/limits"])
def test_another_method_changes_nothing(page: Page, method: str, path: str) -> None:
    page.save()
    before = page.files()
    status, _ = page.ask(method, path, None if method == "HEAD" else {"key": "another-key-of-some-length"})
    assert status == (200 if method == "HEAD" and not path.endswith("test") else 405)
    assert page.files() == before


def test_a_get_changes_nothing_whatever_it_carries(page: Page) -> None:
    page.save()
    before = page.files()
    for path in (f"{ROUTE}?key=another-key", f"{ROUTE}?_method=DELETE", f"{ROUTE}?method=POST"):
        page.ask("GET", path, {"key": "another-key"}, X_HTTP_Method_Override="DELETE")
    assert page.files() == before


@pytest.mark.parametrize(
    "kind",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "text/plain; application/json",
        "application/jsonp",
        "application/csp-report",
        "",
    ],
)
def test_what_a_form_can_post_is_refused(page: Page, kind: str) -> None:
    refused(page, "POST", ROUTE, {"key": KEY}, status=415, Content_Type=kind)
    refused(page, "POST", "/kontext-bridge/limits", {"usd_per_run": 1}, status=415, Content_Type=kind)


def test_two_content_types_are_refused(page: Page) -> None:
    for kinds in (["text/plain", "application/json"], ["application/json", "application/json"]):
        status, _ = page.ask("POST", ROUTE, {"key": KEY}, Content_Type=kinds)
        assert status in {400, 415}  # some versions of aiohttp refuse it by themselves
    assert page.files() == {}


def test_a_body_without_a_content_type_is_refused(page: Page) -> None:
    refused(page, "POST", ROUTE, {"key": KEY}, status=415, without=("Content-Type",))


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON", "application/json; charset=utf-8"])
def test_json_is_taken_however_its_name_is_written(page: Page, kind: str) -> None:
    assert page.ask("POST", ROUTE, {"key": KEY}, Content_Type=kind)[0] == 200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        KEY.encode(),
        f'"{KEY}"'.encode(),
        f'["{KEY}"]'.encode(),
        f'{{"key": "{KEY}", "path": "../../x"}}'.encode(),
        f'{{"key": "{KEY}", "{KEY}": 1}}'.encode(),
        f'{{"key": "{KEY}" oops}}'.encode(),
        b"{}",
        b'{"key": NaN}',
        b"\xff\xfe" + f'{{"key": "{KEY}"}}'.encode("utf-16-le"),
        b'{"key": "\xff"}',
        b"[" * 4000,
        b'{"key":' * 500 + b"1" + b"}" * 500,
        b"1" * 4000,
    ],
    ids=lambda body: ascii(body[:24]),
)
def test_what_is_no_object_with_a_key_is_refused_and_not_repeated(page: Page, body: bytes) -> None:
    refused(page, "POST", ROUTE, body, status=400)


def test_a_packed_body_is_not_unpacked(page: Page) -> None:
    bomb = gzip.compress(b'{"key": "' + b"a" * 1000 + b'"}')
    refused(page, "POST", ROUTE, bomb, status=415, Content_Encoding="gzip")


@pytest.mark.parametrize("size", [4097, 1 << 20, 1 << 60])
def test_a_body_that_says_it_is_large_is_refused_before_it_is_read(page: Page, size: int) -> None:
    refused(page, "POST", ROUTE, b"x", status=413, Content_Length=str(size))


def test_a_body_as_long_as_is_taken_is_read(page: Page) -> None:
    text = BODY + b" " * (bodies.MOST_BYTES - len(BODY))
    assert page.ask("POST", ROUTE, text)[0] == 200
    refused(page, "POST", ROUTE, text + b" ", status=413)


def head(page: Page, *lines: str) -> bytes:
    first = [f"POST {ROUTE} HTTP/1.1", f"Host: {page.host}", f"Origin: {page.origin}", "Content-Type: application/json"]
    return "\r\n".join([*first, "Connection: close", *lines, "", ""]).encode()


def test_a_body_in_pieces_that_does_not_end_is_refused_at_the_bound(page: Page) -> None:
    with socket.create_connection(("127.0.0.1", page.port), timeout=20) as line:
        line.sendall(head(page, "Transfer-Encoding: chunked"))
        answer = b""
        line.settimeout(0.2)
        for _ in range(100):
            try:
                line.sendall(b"400\r\n" + b"a" * 1024 + b"\r\n")
                answer += line.recv(65536)
            except TimeoutError:
                continue
            except OSError:
                break
            if answer:
                break
    assert answer.split()[1] == b"413"
    assert page.files() == {}


def test_a_body_in_pieces_is_taken_where_it_is_small_and_whole(page: Page) -> None:
    pieces = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (BODY[:5], BODY[5:]))
    assert page.raw(head(page, "Transfer-Encoding: chunked") + pieces + b"0\r\n\r\n")[0] == 200


@pytest.mark.parametrize("pieces", [b"5\r\n" + BODY[:5], b"zz\r\n", b"-1\r\n", b"%x\r\n%s\r\n" % (len(BODY), BODY)])
def test_a_body_in_pieces_that_breaks_off_is_not_taken(page: Page, pieces: bytes) -> None:
    status, _ = page.raw(head(page, "Transfer-Encoding: chunked") + pieces, ends=True)
    assert status != 200
    assert page.files() == {}


def test_a_length_that_is_too_short_cuts_the_body_and_its_rest_is_no_request(page: Page) -> None:
    # what aiohttp cannot read as a next request it repeats to its sender, and logs: no key in this one
    body = b'{"key": "another-key-of-some-length"}'
    status, _ = page.raw(head(page, f"Content-Length: {len(body) - 3}") + body)
    assert status == 400
    assert page.files() == {}


def test_a_length_that_is_too_long_is_waited_for_in_vain(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "MOST_SECONDS", 0.3)
    status, _ = page.raw(head(page, f"Content-Length: {len(BODY) + 10}") + BODY)
    assert status == 408
    status, _ = page.raw(head(page, f"Content-Length: {len(BODY) + 10}") + BODY, ends=True)
    assert status in {0, 400, 408}
    assert page.files() == {}


@pytest.mark.parametrize(
    "lines",
    [
        ("Content-Length: 10", "Content-Length: 4000"),
        ("Content-Length: -1",),
        ("Content-Length: 0x10",),
        ("Content-Length: 1e3",),
        ("Content-Length: 20", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: gzip, chunked",),
    ],
    ids=str,
)
def test_a_length_that_means_two_things_is_not_taken(page: Page, lines: tuple[str, ...]) -> None:
    # aiohttp itself answers, and shows its sender, what it cannot take for the chunks that were announced; no page of a
    # browser can send that, so it is asked without a key.
    body = BODY.replace(KEY.encode(), b"none") if lines[-1].endswith("chunked") else BODY
    status, _ = page.raw(head(page, *lines) + body, ends=True)
    assert status != 200
    assert page.files() == {}


@pytest.mark.parametrize(
    "path",
    [
        "/kontext-bridge/",
        "/kontext-bridge/key/",
        "/kontext-bridge//key",
        "/kontext-bridge/../key",
        "/kontext-bridge/key/../../../etc/passwd",
        "/kontext-bridge/key/..%2f..%2fsettings.toml",
        "/kontext-bridge/key%00",
        "/kontext-bridge/key%2e",
        "/kontext-bridge/..%2f..%2foxen_api_key",
        "/kontext-bridge/oxen_api_key",
        "/kontext-bridge/settings.toml",
        "/kontext-bridge/KEY",
        "/Kontext-Bridge/key",
        "/kontext-bridge/key;x",
        "/kontext-bridge\\key",
        "/api/api/kontext-bridge/key",
        "//kontext-bridge/key",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_no_other_path_leads_to_the_key(page: Page, method: str, path: str) -> None:
    page.save()
    before = page.files()
    status, _ = page.ask(method, path, {"key": "another-key-of-some-length"} if method == "POST" else None)
    assert status in {400, 404, 405}
    assert page.files() == before


def test_a_path_in_the_query_or_the_headers_changes_no_place(page: Page) -> None:
    path = f"{ROUTE}?path=/tmp/x&folder=..%2f..&file=x"
    status, _ = page.ask("POST", path, {"key": KEY}, X_Original_URL="/tmp/x", X_Forwarded_Prefix="/../..")
    assert status == 200
    assert list(page.files()) == ["oxen_api_key"]


@pytest.mark.parametrize("change", [*CHANGES, *READS], ids=lambda change: f"{change[0]} {change[1]}")
def test_where_comfyui_serves_several_users_everything_is_refused_in_words(
    page: Page, users: SimpleNamespace, change: Any
) -> None:
    users.multi_user = True
    told, answer = page.ask(*change, Comfy_User="default")
    assert told == 403 and "KONTEXT_BRIDGE_ALLOW_KEY_PAGE" in answer["error"]
    elsewhere = ("OXEN_API_KEY", "oxen_api_key in ComfyUI's folder user/__kontext_bridge")
    assert [one for one in elsewhere if one not in answer["error"]] == []
    assert page.files() == {}


@pytest.mark.parametrize("how", ["variable", "file"])
def test_who_runs_the_machine_can_allow_it_for_several_users(
    page: Page, users: SimpleNamespace, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    users.multi_user = True
    if how == "variable":
        monkeypatch.setenv("KONTEXT_BRIDGE_ALLOW_KEY_PAGE", "true")
    else:
        page.home.mkdir(mode=0o700)
        (page.home / "settings.toml").write_text("allow_key_page = true\n")
    assert page.ask("POST", ROUTE, {"key": KEY})[0] == 200
    refused(page, "DELETE", ROUTE, None, Origin="http://evil.example")


@pytest.mark.parametrize("text", ["allow_key_page = 5\n", "allow_key_page = \n", "allow_key_page = false\n", "x = 1\n"])
def test_a_settings_file_that_does_not_plainly_allow_it_does_not(page: Page, users: SimpleNamespace, text: str) -> None:
    users.multi_user = True
    page.home.mkdir(mode=0o700)
    (page.home / "settings.toml").write_text(text)
    refused(page, "POST", ROUTE, {"key": KEY})


def test_no_answer_is_kept_by_a_cache(page: Page) -> None:
    page.save()
    page.ask("GET", ROUTE)
    page.ask("POST", ROUTE, {"key": ""})
    assert all(b"Cache-Control: no-store" in answer for answer in page.answers)


def test_a_second_copy_of_the_pack_adds_no_route_twice(
    table: web.RouteTableDef, caplog: pytest.LogCaptureFixture
) -> None:
    before = len(table)
    assert before > 0
    register()
    assert len(table) == before and "two copies" in caplog.text
    web.Application().add_routes(table)


def test_off_comfyui_nothing_is_registered() -> None:
    register()
