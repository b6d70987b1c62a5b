"""A GPU that is only pretended, on a build of torch for the CPU: nothing is computed, all that can be known is checked.

Tensors on it are torch's fake ones, which have a shape, a type, strides and a device and no numbers. What they go
through is counted: kernels, the bytes that each reads and writes, copies between devices, reads that make the computer
wait, and the memory that is taken at once. Products of FP8 are held to CUDA's rules, which a CPU does not have.

    with pretended(cards.RTX_40) as gpu:
        linear = Linear(gpu.empty(512, 512, dtype=E4M3), gpu.empty(), None)
        with gpu.counting() as counted:
            linear(gpu.empty(1, 64, 512))
    assert counted.moves == counted.waits == []
    print(len(counted.kernels), counted.bytes, counted.peak)

Bytes are those of whole tensors: what a cache spares, or a compiler joins, is not seen. A number that is read from the
device is made up: True, 0 or 1.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from cards import Card, check_scaled_mm, require
from kontext_bridge.kontext.fp8 import devices, quantising
from kontext_bridge.kontext.fp8.formats import FORMATS
from kontext_bridge.kontext.standalone import before_ampere
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten


@dataclass(frozen=True)
class Kernel:
    """One operation on the device, and the bytes that it reads and writes."""

    name: str
    read: int
    written: int


@dataclass(frozen=True)
class Move:
    """A copy between the computer's memory and the device's."""

    to_device: bool
    bytes: int
    shape: tuple[int, ...]
    blocking: bool


@dataclass
class Counted:
    """What went on in a stretch of work. waits: what was read off the device. peak: bytes that it took at once."""

    kernels: list[Kernel] = field(default_factory=list)
    moves: list[Move] = field(default_factory=list)
    waits: list[str] = field(default_factory=list)
    peak: int = 0

    @property
    def bytes(self) -> int:
        return sum(kernel.read + kernel.written for kernel in self.kernels)

    def by_name(self) -> dict[str, tuple[int, int]]:
        """How many kernels there were of each name, and how many bytes they moved, the most first."""
        moved: Counter[str] = Counter()
        for kernel in self.kernels:
            moved[kernel.name] += kernel.read + kernel.written
        number = Counter(kernel.name for kernel in self.kernels)
        return {name: (number[name], total) for name, total in moved.most_common()}


@dataclass
class Gpu:
    """The device that is pretended."""

    card: Card
    _stretches: list[Counted] = field(default_factory=list)
    _taken: dict[int, tuple[StorageWeakRef, int]] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        return torch.device(self.card.kind, 0)

    def empty(self, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device=self.device)

    @contextmanager
    def counting(self) -> Iterator[Counted]:
        """Counts what goes on in the block; memory from what is there at its beginning."""
        counted = Counted()
        before, self._taken = self._taken, {}
        self._stretches.append(counted)
        try:
            yield counted
        finally:
            self._stretches.remove(counted)
            self._taken = before | self._taken

    def launch(self, name: str, inputs: list[torch.Tensor], outputs: list[torch.Tensor]) -> None:
        kernel = Kernel(name, sum(map(_bytes, inputs)), sum(map(_bytes, outputs)))
        for counted in self._stretches:
            counted.kernels.append(kernel)

    def move(self, source: torch.Tensor, target: torch.Tensor, blocking: bool) -> None:
        move = Move(self.has(target), _bytes(source), tuple(source.shape), blocking)
        for counted in self._stretches:
            counted.moves.append(move)

    def wait(self, what: str) -> None:
        for counted in self._stretches:
            counted.waits.append(what)

    def joined(
        self, rows: torch.Tensor, mean: torch.Tensor | None, together: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What a compiler makes of quantising: a kernel that reads and writes everything once.

        One scale for all rows is known only when all have been read, so they are read by a second one.
        """
        inputs = [rows] if mean is None else [rows, mean]
        out = torch.empty_like(rows, dtype=torch.float8_e4m3fn)
        scale = self.empty(1 if together else len(rows), 1)
        if together:
            self.launch("joined scale", inputs, [scale])
            inputs.append(scale)
        self.launch("joined", inputs, [out] if together else [out, scale])
        return out, scale

    def has(self, tensor: torch.Tensor) -> bool:
        return tensor.device.type == self.card.kind

    @property
    def to_list(self) -> Callable[[torch.Tensor], Any]:
        def tolist(tensor: torch.Tensor) -> Any:
            if self.has(tensor):
                self.wait(f"tolist of {tuple(tensor.shape)}")
            return _listed(tensor.shape, _made_up(tensor))

        return tolist

    def take(self, tensors: list[torch.Tensor], inputs: list[torch.Tensor]) -> None:
        """Tensors have been made; inputs: of which some may be views, or the same."""
        if not self._stretches:
            return
        there = {tensor.untyped_storage()._cdata for tensor in inputs}
        for tensor in filter(self.has, tensors):
            storage = tensor.untyped_storage()
            if storage._cdata not in there:
                self._taken[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self._taken = {key: taken for key, taken in self._taken.items() if not taken[0].expired()}
        total = sum(size for _, size in self._taken.values())
        for counted in self._stretches:
            counted.peak = max(counted.peak, total)


def _bytes(tensor: torch.Tensor) -> int:
    """The bytes of a tensor; what is only repeated by its strides counts once."""
    pairs = zip(tensor.shape, tensor.stride(), strict=True)
    return math.prod(1 if stride == 0 and size else size for size, stride in pairs) * tensor.element_size()


@contextmanager
def pretended(card: Card) -> Iterator[Gpu]:
    """Within the block there is a GPU of this kind, and tensors in the computer's memory have no numbers either."""
    gpu = Gpu(card)
    with ExitStack() as stack:
        for name, answer in _cuda(card).items():
            stack.enter_context(mock.patch.object(torch.cuda, name, answer))
        stack.enter_context(_nothing_known(gpu))
        stack.enter_context(mock.patch.object(torch.nn.Module, "_apply", _apply))
        stack.enter_context(mock.patch.object(FakeTensor, "tolist", gpu.to_list))
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        stack.enter_context(_Operations(gpu))
        stack.enter_context(_Methods(gpu))
        yield gpu


def _cuda(card: Card) -> dict[str, Callable[..., Any]]:
    if card.kind != "cuda":
        return {}
    return {
        "get_device_capability": lambda *_: card.capability,
        "get_device_name": lambda *_: f"NVIDIA {card.name}",
        "get_device_properties": lambda *_: SimpleNamespace(
            name=card.name, major=card.capability[0], minor=card.capability[1], total_memory=card.memory
        ),
        "current_device": lambda: 0,
        "set_device": lambda _: None,
        "synchronize": lambda *_: None,
        "is_bf16_supported": lambda *_: True,
        "memory_stats": lambda *_: Counter(),
        "mem_get_info": lambda *_: (card.memory, card.memory),
    }


def _apply(module: torch.nn.Module, function: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Any:
    """What moves and casts modules, without torch's way for fake tensors, which takes none that anyone looks at."""
    for child in module.children() if recurse else ():
        child._apply(function)
    for name, parameter in module._parameters.items():
        if parameter is not None:
            module._parameters[name] = torch.nn.Parameter(function(parameter), requires_grad=False)
    for name, buffer in module._buffers.items():
        module._buffers[name] = None if buffer is None else function(buffer)
    return module


@contextmanager
def _nothing_known(gpu: Gpu) -> Iterator[None]:
    """Within the block what the pack knows of devices is what it finds out of this one."""
    # Numbers tell whether a device keeps FP8 and writes it, and a stopwatch what is faster; here there is neither.
    holds = {torch.device("cpu"): True, **({gpu.device: True} if gpu.card.holds_fp8 else {})}
    seconds = mock.patch.object(devices, "_seconds", lambda _, product, __: 0.5 if product is gpu.card.faster else 1.0)
    known = mock.patch.dict(devices._KNOWN, clear=True), mock.patch.dict(devices._HOLDS, holds, clear=True)
    writes = mock.patch.dict(quantising._WRITES, {gpu.device: True}, clear=True)
    joins = mock.patch.dict(quantising._JOINS, {gpu.device: gpu.card.triton}, clear=True)
    joined = mock.patch.object(quantising, "_joined", gpu.joined)
    lacks = mock.patch.dict(before_ampere._LACKS, clear=True)
    with seconds, known[0], known[1], writes, joins, joined, lacks:
        yield


def _made_up(tensor: torch.Tensor) -> Any:
    if tensor.dtype == torch.bool:
        return True
    return 1.0 if tensor.is_floating_point() else 0


# Neither reads nor writes a tensor, though its outputs are no views by its declaration.
_FREE = ("empty", "new_empty", "empty_like", "empty_strided", "new_empty_strided", "_unsafe_view", "lift_fresh")
_ONE_KERNEL = ("scaled_dot_product_attention", "rms_norm")


class _Operations(TorchDispatchMode):
    """Counts and checks every operation; those that torch puts together from others by their parts."""

    def __init__(self, gpu: Gpu) -> None:
        super().__init__()
        self._gpu = gpu

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if any(not issubclass(kind, (FakeTensor, torch.nn.Parameter)) and kind is not torch.Tensor for kind in types):
            # Tensors made of tensors come back with those.
            return NotImplemented
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        for tensor in inputs:
            if isinstance(tensor, FakeTensor):
                # Numbers that torch remembers of some; it would compute with them where they are said to be.
                tensor.constant = None
        name = function.overloadpacket.__name__
        if name in ("_local_scalar_dense", "equal"):
            return self._read(function, name, inputs, args)
        if name in _ONE_KERNEL:
            return _one_kernel(self._gpu, name, args, kwargs)
        if _has_parts(function):
            with self:
                return function.decompose(*args, **kwargs)
        self._check(name, inputs, args, kwargs)
        outputs = function(*args, **kwargs)
        if function.namespace == "prim":
            return outputs
        self._count(function, name, inputs, args, kwargs, outputs)
        return outputs

    def _read(self, function: Any, name: str, inputs: list[torch.Tensor], args: Any) -> Any:
        if not any(isinstance(tensor, FakeTensor) for tensor in inputs):
            with _disable_current_modes():
                return function(*args)
        if any(map(self._gpu.has, inputs)):
            self._gpu.wait(f"{name} of {tuple(inputs[0].shape)}")
        return True if name == "equal" else _made_up(inputs[0])

    def _check(self, name: str, inputs: list[torch.Tensor], args: Any, kwargs: Any) -> None:
        card, target = self._gpu.card, kwargs.get("device")
        goes_there = target is not None and torch.device(target).type == card.kind
        there = [tensor for tensor in inputs if self._gpu.has(tensor)]
        kinds = {tensor.dtype for tensor in (inputs if goes_there else there)} | {kwargs.get("dtype")}
        if not card.holds_fp8 and kinds & set(FORMATS) and (there or goes_there):
            raise TypeError(
                f"Trying to convert {kinds & set(FORMATS)} to a backend that has no support for that dtype."
            )
        if name == "_scaled_mm" and there:
            check_scaled_mm(card, *args, **kwargs)

    def _count(
        self, function: Any, name: str, inputs: list[torch.Tensor], args: Any, kwargs: Any, outputs: Any
    ) -> None:
        made = [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, torch.Tensor)]
        self._gpu.take(made, inputs)
        if name in _FREE or _is_view(function) or not any(map(self._gpu.has, [*inputs, *made])):
            return
        if name in ("_to_copy", "copy_"):
            target, source = made[0], inputs[-1]
            if target.device.type != source.device.type:
                asynchronous = kwargs.get("non_blocking", len(args) > 2 and args[2])
                self._gpu.move(source, target, not asynchronous)
                if self._gpu.has(source):
                    self._gpu.wait(f"copy of {tuple(source.shape)}")
                return
        self._gpu.launch(name, self._read_by(function, args, kwargs, inputs, made), made)

    def _read_by(
        self, function: Any, args: Any, kwargs: Any, inputs: list[torch.Tensor], made: list[torch.Tensor]
    ) -> list[torch.Tensor]:
        """The tensors that a kernel reads: all it is given, but those that it only writes to."""
        name = function.overloadpacket.__name__
        if name in ("copy_", "fill_", "zero_"):
            return inputs[1:]
        into = [kwargs[argument.name] for argument in function._schema.arguments if argument.is_out]
        if name in ("addmm", "baddbmm") and kwargs.get("beta", 1) == 0:
            into.append(args[0])
        return [tensor for tensor in inputs if all(tensor is not other for other in into)]


@cache
def _has_parts(function: Any) -> bool:
    if function.namespace == "prim":
        # A question to a tensor, such as on which device it is.
        return False
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(function.name(), "CompositeImplicitAutograd"))


@cache
def _is_view(function: Any) -> bool:
    returned = [value.alias_info for value in function._schema.returns]
    return bool(returned) and all(alias is not None and not alias.is_write for alias in returned)


def _one_kernel(gpu: Gpu, name: str, args: Any, kwargs: Any) -> torch.Tensor:
    """What every GPU does at once, and what torch would take apart here for want of one."""
    if name == "rms_norm":
        weight = args[2] if len(args) > 2 else kwargs.get("weight")
        inputs = [args[0], *([] if weight is None else [weight])]
        out = torch.empty_like(args[0])
    else:
        query, key, value = inputs = list(args[:3])
        require(query.dtype == key.dtype == value.dtype, "query, key and value are of several types")
        require(key.shape[:-1] == value.shape[:-1] and query.shape[-1] == key.shape[-1], "they fit no attention")
        out = torch.empty_like(query)
    require(len({tensor.device for tensor in inputs}) == 1, f"{name} of tensors on several devices")
    if gpu.has(out):
        gpu.take([out], inputs)
        gpu.launch(name, inputs, [out])
    return out


_NUMBERS: dict[str, Callable[[Any], Any]] = {"__int__": int, "__index__": int, "__float__": float, "__bool__": bool}


class _Methods(TorchFunctionMode):
    """What torch's Python methods would ask of a device before any operation is seen: said here in operations."""

    def __init__(self, gpu: Gpu) -> None:
        super().__init__()
        self._gpu = gpu

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(function, "__name__", "")
        first = args[0] if args else None
        if name in _ONE_KERNEL and isinstance(first, torch.Tensor):
            return _one_kernel(self._gpu, name, args, kwargs)
        if isinstance(first, torch.Tensor) and (isinstance(first, FakeTensor) or self._gpu.has(first)):
            if name == "__getitem__":
                return _item(first, args[1])
            if name == "__setitem__":
                return _set_item(first, *args[1:])
            if name in _NUMBERS:
                return _NUMBERS[name](first.item())
            if name == "copy_":
                return aten.copy_.default(*args, **kwargs)
            if name == "contiguous":
                return first if first.is_contiguous(**kwargs) else first.clone(memory_format=torch.contiguous_format)
        if name == "tensor" and kwargs.get("device") is not None:
            made = function(*args, **{**kwargs, "device": "cpu"})
            return made.to(kwargs["device"], non_blocking=True)
        return function(*args, **kwargs)


def _listed(shape: Any, value: Any) -> Any:
    return [_listed(shape[1:], value) for _ in range(shape[0])] if shape else value


def _item(tensor: torch.Tensor, key: Any) -> torch.Tensor:
    keys = list(key) if isinstance(key, tuple) else [key]
    if Ellipsis in [k if k is Ellipsis else 0 for k in keys]:
        at = next(i for i, k in enumerate(keys) if k is Ellipsis)
        given = sum(k is not None for k in keys) - 1
        keys[at : at + 1] = [slice(None)] * (tensor.dim() - given)
    dimension = 0
    for k in keys:
        if k is None:
            tensor = tensor.unsqueeze(dimension)
        elif isinstance(k, slice):
            if k != slice(None):
                tensor = aten.slice.Tensor(tensor, dimension, k.start, k.stop, k.step or 1)
        elif isinstance(k, int):
            tensor = tensor.select(dimension, k)
            continue
        elif isinstance(k, (list, tuple)):
            tensor = tensor.index_select(dimension, torch.empty(len(k), dtype=torch.int64, device=tensor.device))
        else:
            raise NotImplementedError(f"a pretended tensor taken at {k!r}")
        dimension += 1
    return tensor


def _set_item(tensor: torch.Tensor, key: Any, value: Any) -> None:
    place = _item(tensor, key)
    if isinstance(value, torch.Tensor):
        if value is not place:
            aten.copy_.default(place, value)
    else:
        place.fill_(value)
