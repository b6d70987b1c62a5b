"""The house as ARCHITECTURE.md tells it: which way imports run, no circles, a map in every room, no name twice."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NOT_ROOMS = {"tests", "benchmarks", "build", "docs", "out"}
SHIM = ROOT / "headless" / "shim"

# What each room may import besides itself. A wing is a folder in a room; rooms and wings alike run downwards only.
MAY = {
    "": {"nodes", "routes", "commands", "host", "imaging", "kontext", "oxen"},
    "nodes": {"album", "batch", "editing", "host", "imaging", "kontext", "oxen"},
    "routes": {"album", "host", "imaging", "oxen"},
    "album": {"imaging", "oxen"},
    "headless": {"", "commands", "host", "nodes", "oxen", "standin"},
    "batch": {"commands", "editing", "headless", "host", "imaging", "kontext", "oxen"},
    "commands": set(),
    "host": set(),
    "editing": set(),
    "oxen": {"editing"},
    "imaging": set(),
    "kontext": set(),
    "standin": {"commands", "kontext"},
    "training": {"kontext"},
}
# The workshop: its code is held to the same rules, and no user gets it.
NOT_INSTALLED = {"training"}
WINGS = {
    "nodes": {"remote": set(), "local": set(), "pictures": set()},
    "oxen": {"http": set(), "api": {"http"}, "jobs": {"api", "http"}},
    "kontext": {
        "fp8": set(),
        "checkpoint": {"fp8"},
        "fast": set(),
        "demo": {"checkpoint"},
        "comfyui": {"checkpoint", "fp8", "fast", "demo"},
        "standalone": {"checkpoint", "fp8", "fast", "demo"},
    },
    "imaging": {"keep": set()},
}
# One word for one thing, in whichever room. These are what a package always has.
EVERYWHERE = {"__init__", "__main__", "errors"}
# The two mounts of one arithmetic have the same parts; a command is called as the node that does the same; and the
# formats of weights and of pictures are each room's own.
SHARED = {"lora", "sampler", "edit", "keep", "formats"}


def files() -> Iterator[Path]:
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).parts
        if not parts[0].startswith(".") and parts[0] not in NOT_ROOMS and SHIM not in path.parents:
            yield path


def imports(path: Path) -> set[Path]:
    """The files of the pack that a file imports, at its top or inside a function."""
    found: set[Path] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        base = path.parents[node.level - 1]
        at = base.joinpath(*(node.module or "").split("."))
        for name in node.names:
            for candidate in (at / f"{name.name}.py", at / name.name / "__init__.py", at.with_suffix(".py")):
                if candidate.is_file():
                    found.add(candidate)
                    break
            else:
                assert (at / "__init__.py").is_file(), f"{path}: {ast.unparse(node)} leads nowhere"
                found.add(at / "__init__.py")
    return found - {path}


def place(path: Path) -> tuple[str, str]:
    """The room and the wing of a file; empty where it lies beside them."""
    parts = path.relative_to(ROOT).parts[:-1]
    return (parts[0] if parts else ""), (parts[1] if len(parts) > 1 else "")


def test_imports_run_downwards_only() -> None:
    wrong = []
    for path in files():
        room, wing = place(path)
        for other in imports(path):
            their_room, their_wing = place(other)
            if room != their_room:
                fine = their_room in MAY[room]
            elif wing == their_wing or not their_wing:
                fine = True
            elif not wing:  # a file beside the wings: only one that leads into them
                fine = path.name == "__init__.py" or (room == "kontext" and their_wing == "checkpoint")
            else:
                fine = their_wing in WINGS[room][wing]
            if not fine:
                wrong.append(f"{path.relative_to(ROOT)} imports {other.relative_to(ROOT)}")
    assert wrong == []


def test_no_two_files_import_each_other_by_whatever_way() -> None:
    below = {path: imports(path) for path in files()}
    done: set[Path] = set()

    def walk(path: Path, way: tuple[Path, ...]) -> None:
        assert path not in way, " imports ".join(str(one.relative_to(ROOT)) for one in (*way, path))
        if path not in done:
            for other in below.get(path, set()):
                walk(other, (*way, path))
            done.add(path)

    for path in below:
        walk(path, ())


def test_every_room_has_a_map_of_all_that_is_in_it() -> None:
    missing = []
    for package in sorted({path.parent for path in files()} - {ROOT}):
        told = ast.get_docstring(ast.parse((package / "__init__.py").read_text(encoding="utf-8"))) or ""
        inside = [path.name for path in package.glob("*.py") if path.name not in {"__init__.py"}]
        inside += [f"{path.name}/" for path in package.iterdir() if (path / "__init__.py").is_file()]
        missing += [f"{package.relative_to(ROOT)}: {name}" for name in inside if name not in told]
    assert missing == []


def test_no_two_things_share_a_name() -> None:
    classes, modules = defaultdict(set), defaultdict(set)
    for path in files():
        name = str(path.relative_to(ROOT))
        modules[path.stem].add(name)
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                classes[node.name].add(name)
    assert {name: places for name, places in classes.items() if len(places) > 1} == {}
    rooms = {name: {place(ROOT / one)[0] for one in places} for name, places in modules.items()}
    own = {name: places for name, places in rooms.items() if name not in EVERYWHERE and "standin" not in places}
    twice = {name: modules[name] for name in own if len(modules[name]) > 1 and name not in SHARED}
    assert twice == {}


def test_what_is_installed_is_what_is_there() -> None:
    told = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    packages = {path.parent.relative_to(ROOT) for path in files() if place(path)[0] not in NOT_INSTALLED}
    names = {".".join(("kontext_bridge", *package.parts)) for package in packages}
    assert {name for name in names if f'"{name}"' not in told} == set()
