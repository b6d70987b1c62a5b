"""The base class of every node, and what a node returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ._schema import Hidden, HiddenHolder, Schema
from ._ui import PreviewText


class NodeOutput:
    """A node's results, one positional value per declared output.

    `block_execution` is the reason why everything downstream is skipped; it still needs one value per
    output, None will do.
    """

    def __init__(
        self, *args: Any, ui: PreviewText | dict[str, Any] | None = None, block_execution: str | None = None
    ) -> None:
        self.args = args
        self.ui = ui
        self.expand = None
        self.block_execution = block_execution

    @property
    def result(self) -> tuple[Any, ...] | None:
        return self.args or None


class ComfyNode:
    """A node: a schema and an `execute`, both class methods. It has no instance and keeps no state.

    The names in capitals are how a host reads it; a node overrides the lower-case ones only.
    """

    RELATIVE_PYTHON_MODULE: ClassVar[str | None] = None
    # None until a host runs the node: it then calls `execute` on a clone that has the values.
    hidden: ClassVar[HiddenHolder] = None  # type: ignore[assignment]

    @classmethod
    def define_schema(cls) -> Schema:
        """What the node is. Called often: keep it cheap."""
        raise NotImplementedError(f"{cls.__name__} has no define_schema.")

    @classmethod
    def execute(cls, *args: Any, **kwargs: Any) -> Any:
        """Runs the node; inputs arrive by name. May be `async`. Gives a NodeOutput."""
        raise NotImplementedError(f"{cls.__name__} has no execute.")

    @classmethod
    def validate_inputs(cls, *args: Any, **kwargs: Any) -> bool | str:
        """True, or what is wrong. Naming an input here switches off the host's range check of it."""
        raise NotImplementedError

    @classmethod
    def fingerprint_inputs(cls, *args: Any, **kwargs: Any) -> Any:
        """A value that changes when the node must run again on equal inputs."""
        raise NotImplementedError

    @classmethod
    def GET_SCHEMA(cls) -> Schema:
        schema = cls.define_schema()
        schema.finalize()
        return schema

    @classmethod
    def GET_NODE_INFO_V1(cls) -> dict[str, Any]:
        return cls.GET_SCHEMA().as_info(cls.RELATIVE_PYTHON_MODULE)

    @classmethod
    def PREPARE_CLASS_CLONE(cls, v3_data: Mapping[str, Any]) -> type[ComfyNode]:
        """A subclass with the run's hidden values, so that no run touches the class itself."""
        values = {Hidden(key).name: value for key, value in v3_data["hidden_inputs"].items()}
        return type(f"{cls.__name__}Clone", (cls,), {"hidden": HiddenHolder(**values)})
