"""The base class of every node, and what a node returns."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, ClassVar, Generic, TypeVar

from ._schema import Hidden, HiddenHolder, Schema

T = TypeVar("T")


class UIOutput(ABC):
    """Something the front end draws on the node after it ran."""

    @abstractmethod
    def as_dict(self) -> dict[str, Any]:
        """{kind: list of entries}."""


class NodeOutput:
    """A node's results, one positional value per declared output.

    `block_execution` is the reason why everything downstream is skipped; it still needs one value per
    output, None will do.
    """

    def __init__(
        self,
        *args: Any,
        ui: UIOutput | dict[str, Any] | None = None,
        block_execution: str | None = None,
    ) -> None:
        self.args = args
        self.ui = ui
        self.expand = None
        self.block_execution = block_execution

    @property
    def result(self) -> tuple[Any, ...] | None:
        return self.args or None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> NodeOutput:
        return cls(*data.get("result", ()), ui=data.get("ui"))

    def __getitem__(self, index: int) -> Any:
        return self.args[index]


class _ClassProperty(Generic[T]):
    def __init__(self, get: Callable[[Any], T]) -> None:
        self._get = get

    def __get__(self, _: object, owner: type) -> T:
        return self._get(owner)


class ComfyNode:
    """A node: a schema and an `execute`, both class methods. It has no instance and keeps no state.

    The names in capitals are how a host reads it; a node overrides the lower-case ones only.
    """

    RELATIVE_PYTHON_MODULE: ClassVar[str | None] = None
    SCHEMA: ClassVar[Schema]
    # None until a host runs the node: it then calls `execute` on a clone that has the values.
    hidden: ClassVar[HiddenHolder] = None  # type: ignore[assignment]

    @classmethod
    def define_schema(cls) -> Schema:
        """What the node is. Called often: keep it cheap."""
        raise NotImplementedError

    @classmethod
    def execute(cls, *args: Any, **kwargs: Any) -> Any:
        """Runs the node; inputs arrive by name. May be `async`. Gives a NodeOutput."""
        raise NotImplementedError

    @classmethod
    def validate_inputs(cls, *args: Any, **kwargs: Any) -> bool | str:
        """True, or what is wrong. Naming an input here switches off the host's range check of it."""
        raise NotImplementedError

    @classmethod
    def fingerprint_inputs(cls, *args: Any, **kwargs: Any) -> Any:
        """A value that changes when the node must run again on equal inputs."""
        raise NotImplementedError

    @classmethod
    def check_lazy_status(cls, *args: Any, **kwargs: Any) -> list[str]:
        """The lazy inputs that are needed after all."""
        return [name for name, value in kwargs.items() if value is None]

    @classmethod
    def GET_BASE_CLASS(cls) -> type[ComfyNode]:
        return ComfyNode

    @classmethod
    def VALIDATE_CLASS(cls) -> None:
        for name in ("define_schema", "execute"):
            if getattr(cls, name).__func__ is getattr(ComfyNode, name).__func__:
                raise TypeError(f"No {name} function was defined for node class {cls.__name__}.")

    @classmethod
    def FINALIZE_SCHEMA(cls) -> Schema:
        schema = cls.define_schema()
        schema.finalize()
        return schema

    @classmethod
    def GET_SCHEMA(cls) -> Schema:
        """The finished schema. Raises where the class or its schema cannot be a node."""
        cls.VALIDATE_CLASS()
        schema = cls.FINALIZE_SCHEMA()
        schema.validate()
        cls.SCHEMA = schema
        return schema

    @classmethod
    def GET_NODE_INFO_V1(cls) -> dict[str, Any]:
        return asdict(cls.GET_SCHEMA().get_v1_info(cls))

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return cls.FINALIZE_SCHEMA().get_v1_info(cls).input

    @classmethod
    def PREPARE_CLASS_CLONE(cls, v3_data: Mapping[str, Any] | None) -> type[ComfyNode]:
        """A subclass with the run's hidden values, so that no run touches the class itself."""
        hidden = v3_data["hidden_inputs"] if v3_data else {}
        values = {Hidden(key).name: value for key, value in hidden.items()}
        return type(f"{cls.__name__}Clone", (cls,), {"hidden": HiddenHolder(**values)})

    @classmethod
    def EXECUTE_NORMALIZED(cls, *args: Any, **kwargs: Any) -> NodeOutput:
        return _normalized(cls.execute(*args, **kwargs))

    @classmethod
    async def EXECUTE_NORMALIZED_ASYNC(cls, *args: Any, **kwargs: Any) -> NodeOutput:
        return _normalized(await cls.execute(*args, **kwargs))

    FUNCTION = _ClassProperty(
        lambda cls: "EXECUTE_NORMALIZED_ASYNC" if inspect.iscoroutinefunction(cls.execute) else "EXECUTE_NORMALIZED"
    )
    RETURN_TYPES = _ClassProperty(lambda cls: [one.io_type for one in cls.GET_SCHEMA().outputs])
    RETURN_NAMES = _ClassProperty(lambda cls: cls.GET_SCHEMA().get_v1_info(cls).output_name)
    OUTPUT_IS_LIST = _ClassProperty(lambda cls: [one.is_output_list for one in cls.GET_SCHEMA().outputs])
    INPUT_IS_LIST = _ClassProperty(lambda cls: bool(cls.GET_SCHEMA().is_input_list))
    OUTPUT_NODE = _ClassProperty(lambda cls: bool(cls.GET_SCHEMA().is_output_node))
    NOT_IDEMPOTENT = _ClassProperty(lambda cls: bool(cls.GET_SCHEMA().not_idempotent))
    HAS_INTERMEDIATE_OUTPUT = _ClassProperty(lambda cls: bool(cls.GET_SCHEMA().has_intermediate_output))
    CATEGORY = _ClassProperty(lambda cls: str(cls.GET_SCHEMA().category))
    DESCRIPTION = _ClassProperty(lambda cls: str(cls.GET_SCHEMA().description))


def _normalized(returned: Any) -> NodeOutput:
    if isinstance(returned, NodeOutput):
        return returned
    if returned is None:
        return NodeOutput()
    if isinstance(returned, tuple):
        return NodeOutput(*returned)
    if isinstance(returned, dict):
        return NodeOutput.from_dict(returned)
    raise TypeError(f"Invalid return type from node: {type(returned)}")
