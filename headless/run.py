"""Runs a workflow: in dependency order from its output nodes, async nodes side by side, as ComfyUI does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from .builtin import BUILTIN_NODES
from .calls import call, cancelled, settled
from .folders import RunFolders, in_folders
from .given import hidden_names, input_specs, overrides
from .graph import Node, NodeClasses, Problem, Workflow, WorkflowError, parse_workflow
from .outputs import RunResult, blocking, node_result
from .report import Report
from .validate import validate

if TYPE_CHECKING:
    from comfy_api.latest import io


class NodeFailed(Exception):
    """A node raised while it ran; `error` is what it raised."""

    def __init__(self, node: Node, error: BaseException) -> None:
        super().__init__(f"Node {node.id} ({node.class_type}): {error or type(error).__name__}")
        self.node_id = node.id
        self.class_type = node.class_type
        self.error = error


class RunInterrupted(Exception):
    """The run was stopped from outside before it was through."""


def node_table(node_classes: Iterable[type[io.ComfyNode]]) -> dict[str, type[io.ComfyNode]]:
    """The built-in nodes and `node_classes` by node id. Raises where a class cannot be a node."""
    return {one.GET_SCHEMA().node_id: one for one in (*BUILTIN_NODES, *node_classes)}


def run_workflow(
    workflow: Workflow | Mapping[str, Any],
    node_classes: Iterable[type[io.ComfyNode]],
    folders: RunFolders,
    report: Report | None = None,
    interrupted: Callable[[], bool] = lambda: False,
) -> RunResult:
    """Validates and runs a workflow of LoadImage, SaveImage, PreviewImage, EmptyImage and `node_classes`.

    `interrupted` is asked before each node. Raises WorkflowError before anything runs, NodeFailed when a
    node raises (nodes that still wait are cancelled first), RunInterrupted.
    """
    if not isinstance(workflow, Workflow):
        workflow = parse_workflow(workflow)
    run = _Run(workflow, node_table(node_classes), folders, report or Report(), interrupted)
    with in_folders(folders), torch.inference_mode():
        return asyncio.run(run.whole())


@dataclass(frozen=True)
class _Waiting:
    results: list[Any]
    done: asyncio.Future[list[Any]]


class _Run:
    def __init__(
        self,
        workflow: Workflow,
        classes: NodeClasses,
        folders: RunFolders,
        report: Report,
        interrupted: Callable[[], bool],
    ) -> None:
        self.workflow = workflow
        self.classes = classes
        self.folders = folders
        self.report = report
        self.interrupted = interrupted
        self.result = RunResult()
        self.outputs: list[str] = []
        self.started: dict[str, float] = {}
        # Node id to the ids it needs first; a node leaves when it has finished.
        self.needs: dict[str, set[str]] = {}
        self.waiting: dict[str, _Waiting] = {}

    async def whole(self) -> RunResult:
        begin = time.monotonic()
        self.outputs = await validate(self.workflow, self.classes)
        if why_not := self.folders.why_not():
            raise WorkflowError(Problem("output_folder", f"{why_not} Name another with --output. Nothing was run."))
        for id in self.outputs:
            self._add(id)
        try:
            while self.needs:
                await self._step()
        finally:
            for one in self.waiting.values():
                await cancelled(one.results)
        self.result.seconds = time.monotonic() - begin
        return self.result

    def _add(self, id: str) -> None:
        if id in self.needs or id in self.result.nodes:
            return
        node = self.workflow.nodes[id]
        specs = input_specs(self._class(node))
        strong = {source for name, source in node.sources.items() if not specs[name].options.get("lazy")}
        self.needs[id] = {source for source in strong if source not in self.result.nodes}
        for source in strong:
            self._add(source)

    async def _step(self) -> None:
        for id in [id for id, one in self.waiting.items() if one.done.done()]:
            node = self.workflow.nodes[id]
            await self._finish(node, self.waiting.pop(id).results)
        ready = [id for id, needed in self.needs.items() if not needed and id not in self.waiting]
        if ready:
            await self._start(self.workflow.nodes[self._pick(ready)])
        elif self.waiting:
            pending = [one.done for one in self.waiting.values()]
            await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)

    def _pick(self, ready: list[str]) -> str:
        """Output and async nodes first: pictures appear early, and waiting overlaps with work."""
        for id in ready:
            node_class = self._class(self.workflow.nodes[id])
            if id in self.outputs or node_class.FUNCTION == "EXECUTE_NORMALIZED_ASYNC":
                return id
        return ready[0]

    async def _start(self, node: Node) -> None:
        if self.interrupted():
            raise RunInterrupted(f"Interrupted before node {node.id} ({node.class_type}).")
        if node.id not in self.started:
            self.started[node.id] = time.monotonic()
            self.report.started(node.id, node.class_type)
        node_class = self._class(node)
        try:
            data = self._data(node)
            if await self._still_needs(node, node_class, data):
                return
            results = await call(node_class, node_class.FUNCTION, data, self._hidden(node, node_class))
        except BaseException as error:
            raise self._failure(node, error) from error
        tasks = [one for one in results if isinstance(one, asyncio.Task) and not one.done()]
        if tasks:
            self.waiting[node.id] = _Waiting(results, asyncio.gather(*tasks, return_exceptions=True))
        else:
            await self._finish(node, results)

    def _data(self, node: Node) -> dict[str, list[Any]]:
        """The node's inputs, each a list of values; a lazy one that was not evaluated is [None]."""
        specs = input_specs(self._class(node))
        data: dict[str, list[Any]] = {}
        for name, value in node.inputs.items():
            if name not in specs:
                continue
            if name not in node.sources:
                data[name] = [value]
            elif value[0] in self.result.nodes:
                data[name] = self._output(*value)
            else:
                data[name] = [None]
        return data

    def _output(self, source: str, index: int) -> list[Any]:
        outputs = self.result.nodes[source].outputs
        if index >= len(outputs):
            raise ValueError(f"Node {source} gave {len(outputs)} values, so there is no output {index}.")
        return outputs[index]

    async def _still_needs(self, node: Node, node_class: type[io.ComfyNode], data: dict[str, list[Any]]) -> bool:
        """Whether the node asks for lazy inputs that nothing has evaluated yet; they are then queued."""
        if not overrides(node_class, "check_lazy_status"):
            return False
        hidden = self._hidden(node, node_class)
        wanted = await settled(await call(node_class, "check_lazy_status", data, hidden))
        sources = node.sources
        asked = {
            sources[name]
            for names in wanted
            for name in names or ()
            if name in sources and sources[name] not in self.result.nodes
        }
        for source in asked:
            self._add(source)
        self.needs[node.id] |= asked
        return bool(asked)

    def _hidden(self, node: Node, node_class: type[io.ComfyNode]) -> dict[str, Any]:
        given = {"UNIQUE_ID": node.id, "PROMPT": self.workflow.prompt}
        return {name: given.get(name) for name in hidden_names(node_class)}

    async def _finish(self, node: Node, results: list[Any]) -> None:
        try:
            returned = await settled(results)
            schema = self._class(node).GET_SCHEMA()
            result = node_result(node.class_type, schema, returned, self.folders)
        except BaseException as error:
            raise self._failure(node, error) from error
        result.seconds = time.monotonic() - self.started[node.id]
        self.result.nodes[node.id] = result
        used = {link[1] for one in self.workflow.nodes.values() for link in one.links if link[0] == node.id}
        if reasons := blocking(returned, used):
            self.result.blocked[node.id] = "\n".join(reasons)
        del self.needs[node.id]
        for needed in self.needs.values():
            needed.discard(node.id)
        self.report.finished(node.id, result.seconds)

    def _failure(self, node: Node, error: BaseException) -> BaseException:
        """What the run raises for what a node raised: an interruption is not an Exception in ComfyUI."""
        if isinstance(error, Exception):
            return NodeFailed(node, error)
        if isinstance(error, (asyncio.CancelledError, KeyboardInterrupt, SystemExit)):
            return error
        return RunInterrupted(f"Interrupted in node {node.id} ({node.class_type}).")

    def _class(self, node: Node) -> type[io.ComfyNode]:
        return self.classes[node.class_type]
