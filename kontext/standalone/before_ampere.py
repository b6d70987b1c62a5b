"""NVIDIA GPUs older than the RTX 30 series, which have no arithmetic in bfloat16.

torch does it there all the same, by ways that are slow and large: attention is written out in full in 32 bits
(`can_use_mem_efficient_attention` in aten/src/ATen/native/transformers/cuda/sdp_utils.cpp takes half and float alone),
14 GB for a picture of a megapixel and its reference, and convolutions are unrolled into matrices
(`supportsBFloat16ConvolutionWithCuDNNv8` in aten/src/ATen/cuda/detail/CUDAHooks.cpp).
"""

from __future__ import annotations

import torch

_AMPERE = (8, 0)
# A dictionary and no cached function: a compiler can look into it without leaving its graph.
_LACKS: dict[torch.device, bool] = {}


def lacks_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is there only for keeping numbers in."""
    if device not in _LACKS:
        nvidia = device.type == "cuda" and torch.version.hip is None
        _LACKS[device] = nvidia and torch.cuda.get_device_capability(device) < _AMPERE
    return _LACKS[device]
