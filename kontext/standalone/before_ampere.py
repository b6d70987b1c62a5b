"""NVIDIA GPUs before the RTX 30 series, which have no arithmetic in bfloat16.

torch does it there by ways that are slow and large: attention is written out in full (sdp_utils.cpp takes half and
float alone), 14 GB for a megapixel and its reference, and convolutions become matrices (CUDAHooks.cpp).
"""

from __future__ import annotations

import torch

_AMPERE = (8, 0)
# A compiler can look into it without leaving its graph.
_LACKS: dict[torch.device, bool] = {}


def lacks_bfloat16(device: torch.device) -> bool:
    """Whether the device is one of them."""
    if device not in _LACKS:
        nvidia = device.type == "cuda" and torch.version.hip is None
        _LACKS[device] = nvidia and torch.cuda.get_device_capability(device) < _AMPERE
    return _LACKS[device]
