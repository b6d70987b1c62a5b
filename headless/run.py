"""Runs a workflow: in dependency order from its output nodes, async nodes side by side, as ComfyUI does."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from .builtin import BUILTIN_NODES
from .calls import call, cancelled
from .folders import RunFolders, in_folders
from .given import input_specs, is_link
from .graph import Node, NodeClasses, Problem, Workflow, WorkflowError, parse_workflow
from .outputs import RunResult, as_output, blocking, node_result
from .told import Report
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
    with in_folders(folders):
        return asyncio.run(run.whole())


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
        self.started: dict[str, float] = {}
        # Node id to the ids it needs first; a node leaves when it has finished.
        self.needs: dict[str, set[str]] = {}
        self.running: dict[str, asyncio.Task[list[Any]]] = {}

    async def whole(self) -> RunResult:
        begin = time.monotonic()
        nodes = await validate(self.workflow, self.classes)
        if why_not := self.folders.why_not():
            raise WorkflowError(Problem("output_folder", f"{why_not} Name another with --output. Nothing was run."))
        self.needs = {node.id: set(node.sources.values()) for node in nodes}
        import torch  # takes seconds: a workflow that is refused, and what only asks of nodes, needs none

        with torch.inference_mode():
            try:
                while self.needs:
                    await self._step()
            finally:
                await cancelled(list(self.running.values()))
        self.result.seconds = time.monotonic() - begin
        return self.result

    async def _step(self) -> None:
        for id in [id for id, task in self.running.items() if task.done()]:
            self._finish(self.workflow.nodes[id], self.running.pop(id))
        ready = [id for id, needed in self.needs.items() if not needed and id not in self.running]
        if ready:
            await self._start(self.workflow.nodes[self._pick(ready)])
        elif self.running:
            await asyncio.wait(self.running.values(), return_when=asyncio.FIRST_COMPLETED)

    def _pick(self, ready: list[str]) -> str:
        """Output and async nodes first: pictures appear early, and waiting overlaps with work."""
        for id in ready:
            node_class = self._class(self.workflow.nodes[id])
            if node_class.GET_SCHEMA().is_output_node or inspect.iscoroutinefunction(node_class.execute):
                return id
        return ready[0]

    async def _start(self, node: Node) -> None:
        if self.interrupted():
            raise RunInterrupted(f"Interrupted before node {node.id} ({node.class_type}).")
        self.started[node.id] = time.monotonic()
        self.report.started(node.id, node.class_type)
        self.running[node.id] = asyncio.create_task(self._call(node))
        # A node that waits for nothing is through after this.
        await asyncio.sleep(0)

    async def _call(self, node: Node) -> list[Any]:
        node_class = self._class(node)
        specs = input_specs(node_class, node.inputs)
        data = {
            name: self._output(*value) if is_link(value) else [value]
            for name, value in node.inputs.items()
            if name in specs or node_class.GET_SCHEMA().accept_all_inputs
        }
        given = {"UNIQUE_ID": node.id, "PROMPT": self.workflow.prompt}
        hidden = {one.value: given.get(one.value) for one in node_class.GET_SCHEMA().hidden}
        return await call(node_class, "execute", data, hidden)

    def _output(self, source: str, index: int) -> list[Any]:
        outputs = self.result.nodes[source].outputs
        if index >= len(outputs):
            raise ValueError(f"Node {source} gave {len(outputs)} values, so there is no output {index}.")
        return outputs[index]

    def _finish(self, node: Node, task: asyncio.Task[list[Any]]) -> None:
        try:
            returned = [as_output(one) for one in task.result()]
            result = node_result(node.class_type, self._class(node).GET_SCHEMA(), returned, self.folders)
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
