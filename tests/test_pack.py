"""The pack as a whole: what importing it costs and what it says of itself."""

from pathlib import Path

import kontext_bridge
import tomllib
from alone import succeeds_alone


def test_importing_the_pack_pulls_in_nothing_heavy():
    code = (
        "import sys, kontext_bridge;"
        "heavy = {'torch', 'diffusers', 'transformers', 'requests', 'PIL', 'comfy_api'} & set(sys.modules);"
        "sys.exit(repr(heavy) if heavy else 0)"
    )
    succeeds_alone(code)


def test_requirements_txt_and_pyproject_name_the_same_dependencies():
    root = Path(kontext_bridge.__file__).parent
    declared = tomllib.loads((root / "pyproject.toml").read_text())["project"]["dependencies"]
    listed = (root / "requirements.txt").read_text().splitlines()
    assert [line.replace("'", '"') for line in declared] == listed
