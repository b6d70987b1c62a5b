"""The pack as a whole: what importing it costs and what it says of itself."""

import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import kontext_bridge
import pytest
from alone import succeeds_alone
from kontext_bridge.kontext.demo.shipped import TEXT, TRANSFORMER, VAE
from kontext_bridge.oxen.http.transport import USER_AGENT
from kontext_bridge.oxen.version import version

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


def test_the_version_that_the_service_is_told_is_pyprojects():
    assert version() == _project()["version"]
    assert f"kontext-bridge/{_project()['version']}" == USER_AGENT


@pytest.fixture
def archive(tmp_path):
    """What the registry packs: the files of the checkout without those that .comfyignore names."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("needs a git checkout")

    def listed(*options):
        done = subprocess.run(["git", "ls-files", "-z", *options], cwd=ROOT, capture_output=True, check=True, text=True)
        return set(filter(None, done.stdout.split("\0")))

    folder = tmp_path / "kontext_bridge"
    for name in listed() - listed("-c", "-i", "--exclude-from=.comfyignore"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return folder


def test_what_users_install_has_the_help_pages_and_no_tests_or_stand_in(archive):
    assert len(list((archive / "web" / "docs").glob("Kontext*.md"))) >= 18
    top = {path.name for path in archive.iterdir()}
    assert not top & {"tests", "benchmarks", "docs", "training", ".github", ".ci"}
    assert {"pyproject.toml", "requirements.txt", "__init__.py", "nodes", "web", "locales", "README.md"} <= top
    assert [path.name for path in (archive / "standin").iterdir()] == ["__main__.py"]


@pytest.mark.parametrize("name", DEMO)
def test_the_demo_models_files_reach_users_whole_by_every_way(name):
    path = f"kontext/demo/{name}"
    patterns = _table()["tool"]["setuptools"]["package-data"]["kontext_bridge"]
    assert any(fnmatch(path, pattern) for pattern in patterns), "pip"

    def git(*words):
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True)

    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("needs a git checkout")
    # 1: ignored neither there nor in .gitignore
    assert git("-c", "core.excludesFile=.comfyignore", "check-ignore", "--no-index", path).returncode == 1
    assert git("check-attr", "text", path).stdout.endswith(": unset\n"), "git must not mend its line ends"


def test_a_demo_model_that_users_do_not_get_or_that_is_too_large_is_noticed(archive):
    there = [ROOT / "kontext" / "demo" / name for name in DEMO]
    if not all(path.is_file() for path in there):
        pytest.skip("the demo model's files are not there")
    packed = [archive / path.relative_to(ROOT) for path in there]
    assert [path.stat().st_size for path in packed] == [path.stat().st_size for path in there]
    assert sum(path.stat().st_size for path in packed) <= 10_000_000


def test_the_stand_ins_command_says_where_it_is_when_it_was_not_installed(archive):
    command = [sys.executable, "-m", "kontext_bridge.standin"]
    done = subprocess.run(command, cwd=archive.parent, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert "it is in a checkout" in done.stderr and "Traceback" not in done.stderr


def _project():
    return _table()["project"]


def _table():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
