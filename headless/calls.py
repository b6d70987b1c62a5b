"""Calls one class method of a node as ComfyUI does: on a clone, once per element of its lists."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..host import Blocked, set_local_element
from .given import InputSpec, input_specs

if TYPE_CHECKING:
    from comfy_api.latest import io


async def call(
    node_class: type[io.ComfyNode],
    method: str,
    data: Mapping[str, list[Any]],
    hidden: Mapping[str, Any],
) -> list[Any]:
    """One result per element of the input lists; a shorter list repeats its last element.

    Elements that wait do so side by side. All of them end before the first failure is raised; where this call is
    cancelled, they are too. A node with `is_input_list` is called once with the lists themselves. Where an input is
    blocked there is no call and the result is a silent `Blocked`.
    """
    function = getattr(node_class.PREPARE_CLASS_CLONE({"hidden_inputs": dict(hidden)}), method)
    takes_lists = node_class.GET_SCHEMA().is_input_list
    specs = input_specs(node_class, {name: values[0] for name, values in data.items() if values})
    results: list[Any] = []
    tasks: list[asyncio.Task[Any]] = []
    try:
        for index, row in enumerate(_rows(data, takes_lists)):
            set_local_element(index)
            if _is_blocked(row, takes_lists):
                results.append(Blocked(None))
            elif inspect.iscoroutinefunction(function):
                tasks.append(asyncio.create_task(function(**_nested(row, specs))))
                results.append(tasks[-1])
                await asyncio.sleep(0)
            else:
                results.append(function(**_nested(row, specs)))
        if tasks:
            await asyncio.gather(*tasks, return_exceptions=True)  # looked at each, so that none is told of again
    except BaseException:
        await cancelled(tasks)
        raise
    return [one.result() if isinstance(one, asyncio.Task) else one for one in results]


async def cancelled(tasks: list[asyncio.Task[Any]]) -> None:
    """Cancels the tasks and waits until each has ended."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _rows(data: Mapping[str, list[Any]], takes_lists: bool) -> Iterator[dict[str, Any]]:
    count = max(map(len, data.values()), default=0)
    if takes_lists:
        yield dict(data)
    elif count == 0:
        yield {}
    else:
        empty = [name for name, values in data.items() if not values]
        if empty:
            raise ValueError(f"The list linked to {', '.join(empty)} is empty.")
        for index in range(count):
            yield {name: values[min(index, len(values) - 1)] for name, values in data.items()}


def _is_blocked(row: Mapping[str, Any], takes_lists: bool) -> bool:
    values = (one for value in row.values() for one in (value if takes_lists else [value]))
    return any(isinstance(one, Blocked) for one in values)


def _nested(row: Mapping[str, Any], specs: Mapping[str, InputSpec]) -> dict[str, Any]:
    """The arguments, with what belongs to one Autogrow or DynamicCombo input, such as `refs.image_0`, in one dict."""
    arguments: dict[str, Any] = {}
    for spec in specs.values():
        if spec.grows:
            _at(arguments, spec.path[:-1])
        elif len(spec.path) > 1 and spec.path[0] in row:
            _at(arguments, spec.path[:-1])[spec.path[-1]] = None
    for name, value in row.items():
        path = specs[name].path if name in specs else (name,)
        _at(arguments, path[:-1])[path[-1]] = value
    return arguments


def _at(arguments: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    """The dict at a place in the arguments, made where there is none yet."""
    for part in path:
        arguments = arguments.setdefault(part, {})
    return arguments
