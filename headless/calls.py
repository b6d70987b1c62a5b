"""Calls one class method of a node as ComfyUI does: on a locked clone, once per element of its lists."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..host import Blocked, set_local_element
from .given import groups

if TYPE_CHECKING:
    from comfy_api.latest import io


class _Locked(type):
    def __setattr__(cls, name: str, value: object) -> None:
        raise AttributeError(f"{cls.__name__}.{name} cannot be set while the node runs; keep state in a module.")


async def call(
    node_class: type[io.ComfyNode],
    method: str,
    data: Mapping[str, list[Any]],
    hidden: Mapping[str, Any],
) -> list[Any]:
    """One result per element of the input lists; a shorter list repeats its last element.

    A call that is still waiting after its first step is a running `asyncio.Task` in the result; see
    `settled`. A node with `is_input_list` is called once with the lists themselves. Where an input is
    blocked there is no call and the result is a silent `Blocked`.
    """
    clone = node_class.PREPARE_CLASS_CLONE({"hidden_inputs": dict(hidden)})
    function = getattr(_Locked(clone.__name__, (clone,), {}), method)
    grouped = groups(node_class)
    results: list[Any] = []
    try:
        for index, row in enumerate(_rows(data, node_class.INPUT_IS_LIST)):
            set_local_element(index)
            if _is_blocked(row, node_class.INPUT_IS_LIST):
                results.append(Blocked(None))
            elif inspect.iscoroutinefunction(function):
                task = asyncio.create_task(function(**_nested(row, grouped)))
                results.append(task)
                await asyncio.sleep(0)
            else:
                results.append(function(**_nested(row, grouped)))
    except BaseException:
        await cancelled(results)
        raise
    return results


async def settled(results: list[Any]) -> list[Any]:
    """The results with every task's value in its place. Waits for all, then raises the first failure."""
    tasks = [one for one in results if isinstance(one, asyncio.Task)]
    if tasks:
        await asyncio.wait(tasks)
    return [one.result() if isinstance(one, asyncio.Task) else one for one in results]


async def cancelled(results: list[Any]) -> None:
    """Cancels the tasks among the results and waits until each has ended."""
    tasks = [one for one in results if isinstance(one, asyncio.Task)]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _rows(data: Mapping[str, list[Any]], is_input_list: bool) -> Iterator[dict[str, Any]]:
    count = max(map(len, data.values()), default=0)
    if is_input_list:
        yield dict(data)
    elif count == 0:
        yield {}
    else:
        empty = [name for name, values in data.items() if not values]
        if empty:
            raise ValueError(f"The list linked to {', '.join(empty)} is empty.")
        for index in range(count):
            yield {name: values[min(index, len(values) - 1)] for name, values in data.items()}


def _is_blocked(row: Mapping[str, Any], is_input_list: bool) -> bool:
    values = (one for value in row.values() for one in (value if is_input_list else [value]))
    return any(isinstance(one, Blocked) for one in values)


def _nested(row: Mapping[str, Any], grouped: list[str]) -> dict[str, Any]:
    """The arguments with each Autogrow input's sockets, `refs.image_0`, collected in one dict, `refs`."""
    arguments: dict[str, Any] = {group: {} for group in grouped}
    for name, value in row.items():
        group, dot, key = name.partition(".")
        if dot and group in grouped:
            arguments[group][key] = value
        else:
            arguments[name] = value
    return arguments
