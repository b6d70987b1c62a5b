"""Which FP8 product a device has: found out by multiplying, and given up where it fails later.

torch offers two. Row-wise takes a scale for each row of both factors; builds for Windows and ROCm leave it out
(aten/src/ATen/native/cuda/RowwiseScaledMM.cu is compiled under `!defined(USE_ROCM) && !defined(_WIN32)`). Tensor-wise
takes one scale for each factor and is there wherever FP8 arithmetic is. Which is faster depends on the versions of
CUDA and torch, and for layers behind a layer norm it may be the other one: so a GPU that has both is timed once.
"""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass

import torch

from ..errors import UnsupportedDevice
from .failures import REFUSALS, first_line, is_about_the_machine, is_out_of_memory
from .formats import E4M3, FORMATS, Product, Rows, quantise_input
from .products import scaled_mm, widened
from .quantising import join_on

logger = logging.getLogger(__name__)

# A product that is right differs from the widened one by the rounding of its input, a few hundredths.
_STRAYED = 0.1
# Products that are nearly alike would be told apart by chance, and each rounds otherwise: then a seed would give
# another picture after every start.
_CLEARLY_FASTER = 0.93
# Layers to time products on, rows and columns of the weight: with fewer, what is timed is how fast a computer launches
# kernels. Behind a layer norm there is one of a single block, and elsewhere the other.
_AT_ONCE, _ROWS, _LAYERS = 4, 4096, {True: (21504, 3072), False: (3072, 15360)}
SINCE_ADA = "NVIDIA GPUs have it from the RTX 40 series on"


@dataclass(frozen=True)
class Ability:
    """The FP8 product to take on a device, None without any, and why, as the end of a sentence.

    behind_norm: another one for inputs that come from a layer norm, where it is the faster for those.
    """

    product: Product | None
    why: str
    behind_norm: Product | None = None

    def of(self, centred: bool) -> Product | None:
        """The product for a layer; centred: whether its input comes from a layer norm."""
        return (self.behind_norm if centred else None) or self.product

    def required(self, centred: bool = False) -> Product:
        """The same. Raises UnsupportedDevice where there is none."""
        product = self.of(centred)
        if product is None:
            raise UnsupportedDevice(f"FP8 arithmetic was asked for, and {self.why}. Set compute to auto or bf16.")
        return product


# A dictionary and no cached function: a compiler can look into it without leaving its graph.
_KNOWN: dict[torch.device, Ability] = {}
_HOLDS: dict[torch.device, bool] = {}


def ability(device: torch.device) -> Ability:
    """What the device can; found out when it is first asked, which cannot be inside a compiled graph."""
    if device not in _KNOWN:
        _KNOWN[device] = _find(device)
        logger.info("FP8 products on %s: %s", device, _KNOWN[device].why)
    return _KNOWN[device]


def multiply(
    x: torch.Tensor,
    weight: torch.Tensor,
    scale: torch.Tensor,
    bias: torch.Tensor | None,
    product: Product,
    *,
    centred: bool,
    demanded: bool,
    rows: tuple[Rows, ...] | None = None,
    number: float | None = None,
) -> torch.Tensor:
    """The product in FP8; where that fails for the first time, the weight is widened from then on.

    rows: x from `quantise_input`, where it has been quantised already. number: the scale as a number, where known.
    Raises UnsupportedDevice instead of widening where FP8 is `demanded`.
    """
    if torch.compiler.is_compiling():
        return scaled_mm(x, rows or quantise_input(x, product, centred=centred), weight, scale, bias, product)
    try:
        return scaled_mm(x, rows or quantise_input(x, product, centred=centred), weight, scale, bias, product)
    except REFUSALS as error:
        if is_about_the_machine(error):
            raise
        failure = error
    # First of all, so that an input which fits no product is not taken for a failure of this one.
    out = widened(x, weight, scale, bias, number=number)
    _KNOWN[x.device] = Ability(None, f"on {name_of(x.device)} it has failed ({first_line(failure)})")
    if demanded:
        ability(x.device).required()
    logger.warning(
        "An FP8 product failed on %s, so weights are only stored in FP8 there from now on, which is slower: %s",
        name_of(x.device),
        failure,
    )
    return out


def holds_fp8(device: torch.device) -> bool:
    """Whether the device has 8-bit floats at all, to keep and to widen; found out by trying."""
    if device not in _HOLDS:
        _HOLDS[device] = _try_to_hold(device)
    return _HOLDS[device]


def _try_to_hold(device: torch.device) -> bool:
    if device.type == "meta":
        return True
    # 1 in e4m3 and 0.5 in e5m2.
    byte = torch.tensor([0x38], dtype=torch.uint8)
    try:
        told = [float(byte.view(kind).to(device).to(torch.bfloat16).cpu()) for kind in FORMATS]
    except (*REFUSALS, AssertionError) as error:
        if is_about_the_machine(error):
            raise
        logger.info("%s has no 8-bit floats: %s", name_of(device), first_line(error))
        return False
    return told == [1.0, 0.5]


def require_fp8_there(device: torch.device) -> None:
    """Raises UnsupportedDevice where a loaded model's FP8 weights are sent to a device that cannot keep them."""
    if not holds_fp8(device):
        raise no_fp8_there(device, "this model", "Choose another device for it (Select Model Device), or use")


def no_fp8_there(device: torch.device, what: str, instead: str = "Use") -> UnsupportedDevice:
    """What to raise where FP8 weights cannot even be kept: `what` has them."""
    name = name_of(device)
    return UnsupportedDevice(
        f"{name[0].upper()}{name[1:]} has no 8-bit floats, so {what}, whose weights are FP8, cannot be used there. "
        f"{instead} a 16-bit file of Kontext, which stays as it is there and takes twice the memory, or a GGUF file "
        "with ComfyUI-GGUF, or start ComfyUI with --cpu."
    )


# What torch calls devices, and what their owners do.
_CALLED = {"mps": "the Apple GPU", "xpu": "the Intel GPU", "privateuseone": "DirectML"}


def name_of(device: torch.device) -> str:
    """A device's name as its owner knows it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{_CALLED.get(device.type, 'the device')} {device.type!r}"


def _find(device: torch.device) -> Ability:
    if device.type not in ("cuda", "cpu"):
        return Ability(None, f"{name_of(device)} has none ({SINCE_ADA})")
    nvidia = device.type == "cuda" and torch.version.hip is None
    if nvidia and torch.cuda.get_device_capability(device) < (8, 9):
        return Ability(None, f"{name_of(device)} has none ({SINCE_ADA})")
    by_row = _refusal(device, Product.ROWS)
    if by_row is None and device.type == "cpu":
        return Ability(Product.ROWS, "row-wise")
    by_tensor = _refusal(device, Product.TENSOR)
    if by_row is not None and by_tensor is not None:
        return Ability(None, f"{name_of(device)} has none with torch {torch.__version__} ({by_tensor})")
    join_on(device)
    if by_tensor is not None:
        return Ability(Product.ROWS, f"row-wise, for tensor-wise fails here ({by_tensor})")
    if by_row is not None:
        return Ability(
            Product.TENSOR, f"tensor-wise, for torch {torch.__version__} has no row-wise one here ({by_row})"
        )
    if nvidia and torch.cuda.get_device_capability(device) == (8, 9) and _version() < (2, 12):
        # https://github.com/pytorch/pytorch/issues/177651
        return Ability(Product.TENSOR, "tensor-wise, for row-wise ones before torch 2.12 disregard the stream here")
    try:
        return _faster(*((_timed(device, Product.ROWS, c), _timed(device, Product.TENSOR, c)) for c in (False, True)))
    # Timing is no need: whatever else is on the GPU, the model can be loaded.
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        logger.info("There is no room on %s to time FP8 products: %s", name_of(device), first_line(error))
        return Ability(Product.ROWS, "row-wise, untimed, since memory was full")


def _timed(device: torch.device, product: Product, centred: bool) -> float:
    """Its seconds; without end where it fails at a layer's size."""
    try:
        return _seconds(device, product, centred)
    except REFUSALS as error:
        if is_about_the_machine(error):
            raise
        logger.info("The %s FP8 product fails on %s: %s", product.value, name_of(device), first_line(error))
        return math.inf


def _faster(elsewhere: tuple[float, float], behind_norm: tuple[float, float]) -> Ability:
    """What to take by the seconds of both products, row-wise and tensor-wise, for layers of either kind."""
    for product, other, seconds in (
        (Product.ROWS, Product.TENSOR, (elsewhere[1], behind_norm[1])),
        (Product.TENSOR, Product.ROWS, (elsewhere[0], behind_norm[0])),
    ):
        if math.inf in seconds:
            return Ability(product, f"{product.value}, for {other.value} fails at the size of a layer")
    (by_row, by_tensor), (norm_by_row, norm_by_tensor) = elsewhere, behind_norm
    product, normed = (
        Product.TENSOR if tensor < _CLEARLY_FASTER * row else Product.ROWS for row, tensor in (elsewhere, behind_norm)
    )
    taken = product.value if product is normed else f"{product.value}, and {normed.value} behind layer norms"
    times = (
        f"a layer takes {by_row * 1e3:.2f} ms row-wise and {by_tensor * 1e3:.2f} ms tensor-wise, behind a norm "
        f"{norm_by_row * 1e3:.2f} and {norm_by_tensor * 1e3:.2f} ms"
    )
    return Ability(product, f"{taken}: {times}", None if product is normed else normed)


def _refusal(device: torch.device, product: Product) -> str | None:
    """Why the device has not this product, found out by taking it in every form that layers do; None if it has."""
    x = _waves(32, 512, device).to(torch.bfloat16).view(2, 16, 512)
    weight, bias = (_waves(512, 512, device) * 16).to(E4M3), _waves(1, 512, device)[0].to(torch.bfloat16)
    try:
        for scale in torch.full((), 0.02, device=device), torch.full((512,), 0.02, device=device):
            for centred in False, True:
                rows = quantise_input(x, product, centred=centred)
                out = scaled_mm(x, rows, weight, scale, bias, product).float()
                truth = widened(x.float(), weight, scale, bias)
                if not bool((out - truth).norm() < _STRAYED * truth.norm()):
                    return "it gives wrong numbers"
    except REFUSALS as error:
        if is_about_the_machine(error):
            raise
        return first_line(error)
    return None


def _seconds(device: torch.device, product: Product, centred: bool) -> float:
    """How long a layer of FLUX's takes, the quantisation of its input included."""
    n, k = _LAYERS[centred]
    x = _waves(_ROWS, k, device).to(torch.bfloat16).view(1, _ROWS, k)
    weight, scale = (_waves(n, k, device) * 16).to(E4M3), torch.full((), 0.02, device=device)
    bias = _waves(1, n, device)[0].to(torch.bfloat16)
    taken = []
    # The first runs choose and load kernels.
    for _ in range(6):
        torch.cuda.synchronize(device)
        start = time.perf_counter()
        # One after the other, so that a GPU need not wait for the computer.
        for _ in range(_AT_ONCE):
            scaled_mm(x, quantise_input(x, product, centred=centred), weight, scale, bias, product)
        torch.cuda.synchronize(device)
        taken.append((time.perf_counter() - start) / _AT_ONCE)
    return min(taken)


def _waves(rows: int, columns: int, device: torch.device) -> torch.Tensor:
    """Numbers [rows, columns] between -1 and 1 that are alike in every run."""
    return torch.arange(rows * columns, device=device, dtype=torch.float32).mul_(math.e).sin_().view(rows, columns)


def _version() -> tuple[int, ...]:
    return tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
