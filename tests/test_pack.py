"""The pack as a whole: what importing it costs and what it says of itself."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from fnmatch import fnmatch
from pathlib import Path

import kontext_bridge
import pytest
from alone import succeeds_alone
from comfy_server import account_at, comfy_server_with, comfy_service  # noqa: F401
from kontext_bridge.kontext.demo.shipped import LORAS, TEXT, TRANSFORMER, VAE, demo_loras
from kontext_bridge.oxen.http.transport import USER_AGENT
from kontext_bridge.oxen.version import version
from pack import INFO, TITLES, TWINS, read
from PIL import Image

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(kontext_bridge.__file__).resolve().parent
DEMO = (TRANSFORMER, VAE, TEXT)


def test_importing_the_pack_pulls_in_nothing_heavy():
    code = (
        "import sys, kontext_bridge;"
        "heavy = {'torch', 'diffusers', 'transformers', 'requests', 'PIL', 'comfy_api'} & set(sys.modules);"
        "sys.exit(repr(heavy) if heavy else 0)"
    )
    succeeds_alone(code)


def test_requirements_txt_and_pyproject_name_the_same_dependencies():
    declared = _project()["dependencies"]
    listed = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert [line.replace("'", '"') for line in declared] == listed


@pytest.mark.parametrize(
    ("extra", "said"),
    [("local", "kontext/errors.py"), ("ray", "batch/ray_cluster.py"), ("standin", "standin/__main__.py")],
)
def test_what_a_text_says_to_install_is_what_pyproject_names_and_never_the_pack_itself(extra, said):
    """The pack is in no package index: under its name a stranger's could be."""
    (line,) = re.findall(r"python -m pip install ('.*')", (ROOT / said).read_text(encoding="utf-8"))
    assert re.findall("'(.+?)'", line) == _project()["optional-dependencies"][extra]
    rooms = [path.parent for path in ROOT.glob("*/__init__.py")]
    texts = (
        *ROOT.glob("*.md"),
        *(ROOT / "docs").glob("*.md"),
        *(path for room in rooms for path in room.rglob("*.py")),
    )
    asked = re.compile(r"pip install [^\n]*kontext-bridge(?!/requirements)")
    assert [path.name for path in texts if asked.search(path.read_text(encoding="utf-8"))] == []


def test_the_version_that_the_service_is_told_is_pyprojects():
    assert version() == _project()["version"]
    assert f"kontext-bridge/{_project()['version']}" == USER_AGENT


# Beside the rooms. Whoever adds to it has decided that users need it.
USERS_NEED = {
    *("__init__.py", "edit.py", "keep.py", "models.py", "py.typed", "pyproject.toml", "requirements.txt"),
    *("README.md", "LICENSE"),
    *("web", "locales", "example_workflows", "subgraphs"),
}
KINDS = {".py", ".typed", ".toml", ".txt", ".md", ".js", ".css", ".json", ".jpg", ".png", ".svg", ".safetensors", ""}


def _listed(*options):
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("needs a git checkout")
    done = subprocess.run(["git", "ls-files", "-z", *options], cwd=ROOT, capture_output=True, check=True, text=True)
    return set(filter(None, done.stdout.split("\0")))


def _packed():
    """What the registry packs: the files of the checkout without those that .comfyignore names."""
    return _listed() - _listed("-c", "-i", "--exclude-from=.comfyignore")


@pytest.fixture
def archive(tmp_path):
    folder = tmp_path / "kontext_bridge"
    for name in _packed():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return folder


def test_what_users_install_has_the_help_pages_and_no_tests_or_stand_in(archive):
    assert len(list((archive / "web" / "docs").glob("Kontext*.md"))) >= 18
    top = {path.name for path in archive.iterdir()}
    assert not top & {"tests", "benchmarks", "docs", "training", ".github", ".ci"}
    assert {"pyproject.toml", "requirements.txt", "__init__.py", "nodes", "web", "locales", "README.md"} <= top
    assert [path.name for path in (archive / "standin").iterdir()] == ["__main__.py"]


@pytest.mark.parametrize("name", [*DEMO, *LORAS])
def test_the_demo_models_files_reach_users_whole_by_every_way(name):
    path = f"kontext/demo/{name}"
    patterns = _pyproject()["tool"]["setuptools"]["package-data"]["kontext_bridge"]
    assert any(fnmatch(path, pattern) for pattern in patterns), "pip"

    def git(*words):
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True)

    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("needs a git checkout")
    # 1: ignored neither there nor in .gitignore
    assert git("-c", "core.excludesFile=.comfyignore", "check-ignore", "--no-index", path).returncode == 1
    assert git("check-attr", "text", path).stdout.endswith(": unset\n"), "git must not mend its line ends"


def test_the_files_of_the_services_models_reach_users_by_every_way(archive):
    files = {path.name for path in (ROOT / "oxen" / "api" / "models").glob("*.json")}
    patterns = _pyproject()["tool"]["setuptools"]["package-data"]["kontext_bridge"]
    assert files and all(any(fnmatch(f"oxen/api/models/{name}", one) for one in patterns) for name in files), "pip"
    assert {path.name for path in (archive / "oxen" / "api" / "models").glob("*.json")} == files


def test_a_demo_model_that_users_do_not_get_or_that_is_too_large_is_noticed(archive):
    there = [ROOT / "kontext" / "demo" / name for name in DEMO]
    if not all(path.is_file() for path in there):
        pytest.skip("the demo model's files are not there")
    there += [ROOT / "kontext" / "demo" / path.name for path in demo_loras().values()]
    packed = [archive / path.relative_to(ROOT) for path in there]
    assert [path.stat().st_size for path in packed] == [path.stat().st_size for path in there]
    assert sum(path.stat().st_size for path in packed) <= 10_000_000


def test_a_file_that_users_do_not_need_is_noticed_in_the_archive(archive):
    packages = _pyproject()["tool"]["setuptools"]["packages"]
    rooms = {package.split(".")[1] for package in packages if "." in package}
    assert {path.name for path in archive.iterdir()} <= USERS_NEED | rooms
    files = [path for path in archive.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= KINDS
    assert sum(path.stat().st_size for path in files) < 12 * 2**20


@pytest.mark.comfyui
def test_an_archive_whose_nodes_comfyui_does_not_load_and_run_is_noticed(archive, tmp_path, comfy_service):  # noqa: F811
    packs = {"kontext-bridge": archive}
    with comfy_server_with(packs, tmp_path / "base", account_at(comfy_service)) as server:
        served = server.get("/object_info")
        assert {id: served[id]["python_module"] for id in INFO} == dict.fromkeys(INFO, "custom_nodes.kontext-bridge")
        assert set(server.get("/workflow_templates")["kontext-bridge"]) == set(TITLES.values())
        shutil.copy(archive / "example_workflows" / "kontext_example.png", server.base / "input")
        done = server.run(read(TWINS / "remote_edit.json"))
        assert done["status"]["status_str"] == "success", done["status"]["messages"]
    assert comfy_service.leaks == []


def test_a_room_that_is_missing_in_the_archive_is_noticed(archive):
    modules = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("*.py")}
    for package in _pyproject()["tool"]["setuptools"]["packages"]:
        folder = ROOT.joinpath(*package.split(".")[1:])
        if folder not in (ROOT, ROOT / "standin"):
            modules |= {path.relative_to(ROOT).as_posix() for path in folder.glob("*.py")}
    assert modules & _listed() <= _packed()


def test_comfy_cli_finds_nothing_wrong_and_packs_the_same_files(tmp_path):
    comfy = os.environ.get("COMFY_CLI") or shutil.which("comfy")
    if not comfy:
        pytest.skip("needs comfy-cli: name its command in COMFY_CLI, or see `make archive`")
    if _listed("-m", "-d", "-o", "--exclude-standard") or _staged():
        pytest.skip("packs what is committed, and this checkout differs from it")
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(tmp_path / "clone")], check=True)
    home = {**os.environ, "HOME": str(tmp_path), "DO_NOT_TRACK": "1"}
    for word in "validate", "pack":
        command = [comfy, "--skip-prompt", "--no-enable-telemetry", "node", word]
        done = subprocess.run(command, cwd=tmp_path / "clone", env=home, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    with zipfile.ZipFile(tmp_path / "clone" / "node.zip") as packed:
        assert set(packed.namelist()) == _packed()


@pytest.mark.parametrize(("what", "across", "down", "widest"), [("Icon", 1, 1, 400), ("Banner", 21, 9, 1280)])
def test_a_picture_that_the_registry_does_not_find_or_take_is_noticed(what, across, down, widest):
    address = _pyproject()["tool"]["comfy"][what]
    begin = "https://raw.githubusercontent.com/kontext-bridge/kontext-bridge/main/"
    assert address.startswith(begin)
    with Image.open(ROOT / address[len(begin) :]) as picture:
        assert picture.width * down == picture.height * across and picture.width <= widest


def test_the_stand_ins_command_says_where_it_is_when_it_was_not_installed(archive):
    command = [sys.executable, "-m", "kontext_bridge.standin"]
    done = subprocess.run(command, cwd=archive.parent, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert "it is in a checkout" in done.stderr and "Traceback" not in done.stderr


def _pyproject():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def _project():
    return _pyproject()["project"]


def _staged():
    return subprocess.run(["git", "diff", "--cached", "--quiet"], cwd=ROOT).returncode != 0
