"""Who makes the rows: chosen by the command line, loaded when the plan stands."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..commands.console import typed
from ..commands.named import path_of, shown, source
from ..editing.values import Unfit
from ..oxen.choices import SendAs, WaitMode
from .columns import Columns, local_columns, remote_columns
from .likeness import likeness, weights_in
from .row_maker import Maker, Spending
from .row_price import private_folder
from .source_rows import SourceError

# Of a diffusers folder.
_PARTS = {"--local": ("transformer",), "--text-encoders": ("text_encoder", "text_encoder_2"), "--vae": ("vae",)}


class Choice:
    """One way to make rows. columns: what a source may ask for. by: which way, as part of what is asked for."""

    columns: Columns
    by: str
    is_paid = True

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options

    def defaults(self) -> dict[str, Any]:
        """What the command line gives for every row; raises SourceError."""
        given: dict[str, Any] = {}
        for setting in self._options.settings:
            name, equals, value = typed(setting).partition("=")
            if not equals or name not in self.columns.fields:
                raise SourceError(f"--set {setting[:60]}: write it as NAME=VALUE, of {', '.join(self.columns.fields)}.")
            try:
                given[name] = self.columns.typed(name, value)
            except Unfit as error:
                raise SourceError(f"--set: {error}") from None
        if self._options.prompt is not None:
            if "prompt" not in self.columns.fields:
                raise SourceError("--prompt says nothing to this workflow: map it with --map prompt=NODE.INPUT.")
            given["prompt"] = self._options.prompt
        return given

    def made_with(self) -> str:
        """What tells the files that every row is made with from others under the same names; raises OSError."""
        return ""

    def maker(self, work: Path, spending: Spending) -> Maker:
        raise NotImplementedError


class Remote(Choice):
    """At Oxen.ai."""

    columns = remote_columns()
    by = "remote"

    def maker(self, work: Path, spending: Spending) -> Maker:
        from .owed import left_to_spend
        from .remote_rows import RemoteRows, RemoteTerms

        options = self._options
        terms = RemoteTerms(
            seconds=options.timeout,
            wait=WaitMode(options.wait),
            send_as=SendAs(options.send_as),
            usd=left_to_spend(private_folder(), spending),
            measures=bool(options.flags),
            for_lost=options.pay_for_lost,
            began=spending.began,
        )
        if options.ray is None:
            return RemoteRows(terms)
        from .ray_remote import RayRemoteRows

        return RayRemoteRows(options.ray, terms)


class Local(Choice):
    """On this machine."""

    columns = local_columns()
    is_paid = False

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        self._loras = tuple(_lora(text) for text in options.lora)
        self._paths = {} if options.demo else _model_files(options)
        names = [path.resolve() for path in self._paths.values()]
        self.by = "demo" if options.demo else f"local {names}"
        self.by += f" {[(str(file.resolve()), strength) for file, strength in self._loras]}" if self._loras else ""

    def made_with(self) -> str:
        if self._options.demo:
            from ..kontext.demo.shipped import demo_files

            demo = demo_files()
            files = [demo.transformer, demo.text, demo.vae]
        else:
            files = [file for name, path in self._paths.items() for file in weights_in(path, _PARTS[name])]
        return likeness([*files, *(file for file, _ in self._loras)])

    def maker(self, work: Path, spending: Spending) -> Maker:
        from .local_rows import LocalModel, LocalRows

        paths, options = self._paths, self._options
        model = LocalModel(
            paths.get("--local"),
            paths.get("--text-encoders", Path()),
            paths.get("--vae", Path()),
            self._loras,
            options.device,
        )
        if options.ray is None:
            return LocalRows(model, measures=bool(options.flags))
        from .ray_local import RayLocalRows

        return RayLocalRows(options.ray, model, measures=bool(options.flags), workers=options.workers)


class Through(Choice):
    """Through a workflow."""

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        from .workflow_rows import Recipe

        self._recipe = Recipe(source(options.workflow, "--workflow"), options.mapping, options.settings)
        self.columns = self._recipe.columns()
        self.by = f"workflow {self._recipe.digest}"

    def defaults(self) -> dict[str, Any]:
        prompt = self._options.prompt
        if prompt is not None and "prompt" not in self.columns.fields:
            raise SourceError("--prompt says nothing to this workflow: map it with --map prompt=NODE.INPUT.")
        return {} if prompt is None else {"prompt": prompt}

    def made_with(self) -> str:
        return likeness(pictures) if (pictures := self._recipe.own_pictures()) else ""

    def maker(self, work: Path, spending: Spending) -> Maker:
        from .workflow_rows import WorkflowRows

        return WorkflowRows(self._recipe, work, spending)


def chosen(options: argparse.Namespace) -> Choice:
    """Who makes the rows; raises SourceError for options that do not go together, WrongName."""
    ways = {"--local": options.local, "--demo": options.demo, "--workflow": options.workflow}
    asked = [name for name, value in ways.items() if value]
    if len(asked) > 1:
        raise SourceError(f"{' and '.join(asked)} are two ways to edit: give one of them.")
    needs: Mapping[str, tuple[str, ...]] = {
        "--text-encoders": ("--local",),
        "--vae": ("--local",),
        "--lora": ("--local", "--demo"),
        "--device": ("--local", "--demo"),
        "--workers": ("--local", "--demo"),
        "--map": ("--workflow",),
    }
    given = vars(options) | {"map": options.mapping}
    for name, ways_to in needs.items():
        if given[name.strip("-").replace("-", "_")] and not set(asked) & set(ways_to):
            raise SourceError(f"{name} needs {' or '.join(ways_to)}.")
    if options.workers and not options.ray:
        raise SourceError("--workers needs --ray.")
    if options.ray and options.workflow:
        raise SourceError("--ray spreads built-in edits, not what a workflow makes: leave it out, or use --shard.")
    if options.flags and options.workflow:
        raise SourceError("--flag measures built-in edits, not what a workflow makes: leave it out.")
    if options.rerun_flagged and not options.flags:
        raise SourceError("--rerun-flagged needs --flag, which says what marks a row.")
    if options.workflow:
        return Through(options)
    return Local(options) if asked else Remote(options)


def _model_files(options: argparse.Namespace) -> dict[str, Path]:
    given = {"--local": options.local, "--text-encoders": options.text_encoders, "--vae": options.vae}
    lacking = [name for name, text in given.items() if text is None]
    if lacking:
        raise SourceError(f"--local also needs {' and '.join(lacking)}.")
    paths = {name: path_of(text, name) for name, text in given.items()}
    for name, path in paths.items():
        if not path.exists():
            raise SourceError(f"There is no file or folder at {shown(path)}, which {name} names.")
    return paths


def _lora(text: str) -> tuple[Path, float]:
    """The file and strength in FILE or FILE=STRENGTH; a file's own name may hold an equals sign."""
    if Path(text).is_file():
        return Path(text), 1.0
    file, equals, number = text.rpartition("=")
    try:
        strength = float(number) if equals else 1.0
    except ValueError:
        raise SourceError(f"--lora takes FILE or FILE=STRENGTH, and {number[:40]!r} is no number.") from None
    if not math.isfinite(strength):
        raise SourceError(f"The strength of the LoRA {file} is {number}; it must be a number.")
    return source(file if equals else text, "--lora"), strength
