from __future__ import annotations

import os
import subprocess
import traceback
from pathlib import Path

import pytest
from kontext_bridge.oxen.credentials import KEY_FILE, Account, find_account, normalise_base_url
from kontext_bridge.oxen.errors import Misconfigured

ENV_KEY, CONFIG_KEY, FILE_KEY = "key-of-the-environment", "key-of-the-oxen-config", "key-of-the-file-0000"
CONFIG = f'default_host = "hub.oxen.ai"\n\n[[host_configs]]\nhost = "hub.oxen.ai"\nauth_token = "{CONFIG_KEY}"\n'


class Places:
    """The three places that a key can be in, each empty until it is written."""

    def __init__(self, folder: Path) -> None:
        self.user = folder / "user"
        self.oxen = folder / "oxen"
        self.user.mkdir()
        self.oxen.mkdir()
        self.environ = {"OXEN_CONFIG_DIR": str(self.oxen)}

    def config(self, text: str | bytes = CONFIG) -> None:
        path = self.oxen / "auth_config.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())

    def file(self, text: str | bytes = FILE_KEY + "\n", mode: int = 0o600) -> None:
        path = self.user / KEY_FILE
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        path.chmod(mode)

    def find(self) -> Account:
        return find_account(self.user, self.environ)


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path)


def test_the_environment_goes_before_oxens_config_and_that_before_the_file(places: Places) -> None:
    places.file()
    assert places.find().key == FILE_KEY
    places.config()
    assert places.find().key == CONFIG_KEY
    places.environ["OXEN_API_KEY"] = ENV_KEY
    assert places.find().key == ENV_KEY


def test_without_a_key_the_error_names_every_place_to_put_one(places: Places) -> None:
    account = places.find()
    assert account.key is None
    with pytest.raises(Misconfigured) as raised:
        account.require_key()
    path = str(places.user / KEY_FILE)
    assert str(raised.value).startswith("No Oxen.ai key: Settings > Kontext Bridge. Nothing was sent.")
    for word in ("OXEN_API_KEY", "oxen config --auth hub.oxen.ai", path, "https://oxen.ai/settings/profile"):
        assert word in str(raised.value)


def test_an_empty_key_is_no_key(places: Places) -> None:
    places.environ["OXEN_API_KEY"] = " \n"
    places.file("\n")
    with pytest.raises(Misconfigured, match="No Oxen"):
        places.find().require_key()


@pytest.mark.parametrize("blank", [f" {ENV_KEY}\n", f"{ENV_KEY}\r\n", f"\t{ENV_KEY}"])
def test_blanks_and_line_breaks_around_a_key_are_taken_off(places: Places, blank: str) -> None:
    places.environ["OXEN_API_KEY"] = blank
    assert places.find().key == ENV_KEY


@pytest.mark.parametrize("inside", ["\n", "\r\n", " ", "\x00", "\x7f", "é", "\u200b"])
def test_a_key_with_a_line_break_or_odd_character_inside_is_refused_and_not_shown(places: Places, inside: str) -> None:
    key = ENV_KEY + inside + "X-Other: 1"
    places.environ["OXEN_API_KEY"] = key
    with pytest.raises(Misconfigured, match="copy it again") as raised:
        places.find()
    assert ENV_KEY not in "".join(traceback.format_exception(raised.value))


def test_an_account_does_not_show_its_key(places: Places) -> None:
    places.environ["OXEN_API_KEY"] = ENV_KEY
    account = places.find()
    assert ENV_KEY not in repr(account)
    assert ENV_KEY not in account.source


@pytest.mark.skipif(os.name != "posix", reason="file modes")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o610, 0o777])
def test_a_key_file_that_others_can_reach_is_put_right_and_that_is_logged(
    places: Places, mode: int, caplog: pytest.LogCaptureFixture
) -> None:
    places.file(mode=mode)
    assert places.find().key == FILE_KEY
    path = places.user / KEY_FILE
    assert path.stat().st_mode & 0o7777 == 0o600
    assert [str(path) in record.getMessage() for record in caplog.records] == [True]
    assert places.find().key == FILE_KEY and len(caplog.records) == 1
    assert FILE_KEY not in caplog.text


@pytest.mark.skipif(os.name != "posix", reason="file modes")
def test_a_key_file_that_cannot_be_put_right_is_taken_from_a_private_folder_alone(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    places.file(mode=0o644)

    def not_permitted(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "chmod", not_permitted)
    monkeypatch.setattr(os, "chmod", not_permitted)
    subprocess.run(["chmod", "755", places.user], check=True)
    with pytest.raises(Misconfigured, match=r"chmod 600.*Nothing was sent") as raised:
        places.find()
    assert str(places.user / KEY_FILE) in str(raised.value)
    subprocess.run(["chmod", "700", places.user], check=True)
    assert places.find().key == FILE_KEY
    assert (places.user / KEY_FILE).stat().st_mode & 0o777 == 0o644


@pytest.mark.skipif(os.name != "posix", reason="file modes")
def test_a_disk_that_keeps_no_modes_does_not_pass_for_a_private_one(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    places.file(mode=0o644)
    places.user.chmod(0o755)
    monkeypatch.setattr(Path, "chmod", lambda *_, **__: None)
    with pytest.raises(Misconfigured, match="chmod 600"):
        places.find()


def test_a_user_without_a_home_can_still_have_a_key_file(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    del places.environ["OXEN_CONFIG_DIR"]
    assert places.find().key is None
    places.file()
    assert places.find().key == FILE_KEY


@pytest.mark.skipif(os.name != "posix", reason="file modes")
def test_a_key_file_of_another_mode_does_not_matter_where_the_key_comes_from_elsewhere(places: Places) -> None:
    places.file(mode=0o644)
    places.environ["OXEN_API_KEY"] = ENV_KEY
    assert places.find().key == ENV_KEY


def test_the_mark_that_windows_editors_put_before_a_text_is_no_part_of_the_key(places: Places) -> None:
    places.file("\ufeff" + FILE_KEY + "\r\n")
    assert places.find().key == FILE_KEY


def test_a_key_file_that_is_no_text_is_named_and_not_shown(places: Places) -> None:
    places.file(b"\xff\xfe" + FILE_KEY.encode("utf-16-le"))
    with pytest.raises(Misconfigured) as raised:
        places.find()
    assert str(places.user / KEY_FILE) in str(raised.value)
    assert "xff" not in str(raised.value)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(f'[[host_configs]]\nhost = "hub.oxen.ai"\nauth_token = "{CONFIG_KEY}"\n', id="no default_host"),
        pytest.param(
            f'[[host_configs]]\nhost = "localhost:3001"\nauth_token = "other"\n\n{CONFIG.partition(chr(10))[2]}',
            id="another host first",
        ),
        pytest.param(CONFIG.replace("hub.oxen.ai", "Hub.Oxen.AI"), id="host in capitals"),
        pytest.param("\ufeff" + CONFIG, id="byte order mark"),
        pytest.param(CONFIG.replace("\n", "\r\n"), id="CRLF"),
    ],
)
def test_the_shapes_of_oxens_config_that_occur_are_read(places: Places, text: str) -> None:
    places.config(text)
    assert places.find().key == CONFIG_KEY


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param('default_host = "hub.oxen.ai"\n', id="no hosts"),
        pytest.param('[[host_configs]]\nhost = "hub.oxen.ai"\n', id="no token"),
        pytest.param('[[host_configs]]\nhost = "hub.oxen.ai"\nauth_token = 5\n', id="token is a number"),
        pytest.param(f'[[host_configs]]\nauth_token = "{CONFIG_KEY}"\n', id="no host"),
        pytest.param(f'[host_configs]\nhost = "hub.oxen.ai"\nauth_token = "{CONFIG_KEY}"\n', id="a table, no list"),
        pytest.param('host_configs = ["hub.oxen.ai"]\n', id="a list of texts"),
        pytest.param(CONFIG.replace("hub.oxen.ai", "evil.example"), id="only another host"),
        pytest.param(CONFIG[:-5], id="cut"),
        pytest.param(b"\xff\xfe\x00", id="no UTF-8"),
    ],
)
def test_a_broken_oxens_config_gives_no_key_and_stops_nothing(places: Places, text: str | bytes) -> None:
    places.config(text)
    assert places.find().key is None
    places.file()
    assert places.find().key == FILE_KEY


def test_the_key_of_one_host_is_never_taken_for_another(places: Places) -> None:
    places.config()
    places.environ["OXEN_BASE_URL"] = "https://oxen.example.org"
    assert places.find().key is None


def test_a_host_with_a_port_is_found_by_both_together(places: Places) -> None:
    places.config('[[host_configs]]\nhost = "localhost:3001"\nauth_token = "local-key"\n')
    places.environ["OXEN_BASE_URL"] = "http://localhost:3001/api"
    assert places.find().key == "local-key"
    places.environ["OXEN_BASE_URL"] = "http://localhost:3002"
    assert places.find().key is None


@pytest.mark.parametrize(
    ("given", "base"),
    [
        ("https://hub.oxen.ai", "https://hub.oxen.ai"),
        ("https://hub.oxen.ai/", "https://hub.oxen.ai"),
        ("https://hub.oxen.ai/api", "https://hub.oxen.ai"),
        ("https://hub.oxen.ai/api/ai", "https://hub.oxen.ai"),
        (" https://HUB.oxen.ai/api/ai/ \n", "https://hub.oxen.ai"),
        ("https://hub.oxen.ai:443/api", "https://hub.oxen.ai"),
        ("https://hub.oxen.ai:8443", "https://hub.oxen.ai:8443"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://localhost:80", "http://localhost"),
        ("http://[::1]:8000/api", "http://[::1]:8000"),
    ],
)
def test_a_base_url_is_the_same_however_it_is_written(given: str, base: str) -> None:
    assert normalise_base_url(given) == base


@pytest.mark.parametrize(
    "given",
    [
        "hub.oxen.ai",
        "ftp://hub.oxen.ai",
        "file:///etc/passwd",
        "https://",
        "https:///api",
        "https://user:secret@hub.oxen.ai",
        "https://hub.oxen.ai@evil.example",
        "https://hub.oxen.ai/other",
        "https://hub.oxen.ai/api?x=1",
        "https://hub.oxen.ai/#api",
        "https://hub.oxen.ai:99999",
        "https://hub.oxen.ai:port",
        "https://[::1",
        "https://[hub.oxen.ai]",
        "http://hub.oxen.ai",
        "http://10.0.0.1",
        "http://localhost.evil.example",
    ],
)
def test_a_base_url_that_could_send_the_key_astray_is_refused_by_name(given: str) -> None:
    with pytest.raises(Misconfigured, match="OXEN_BASE_URL") as raised:
        normalise_base_url(given)
    assert "secret" not in str(raised.value)
