"""The nodes of the pack: a schema each, and a few lines that call the rooms below."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .canvas import KontextPrepare, KontextRestore
from .history import KontextHistory
from .images import KontextDecodeImage, KontextEncodeImage, KontextImageToURI, KontextURIToImage
from .keep import KontextKeep
from .local import KontextEditLocal, KontextLoadFP8, KontextLoRA, KontextSample
from .queue import KontextCancel, KontextCollect, KontextQueueStatus, KontextSubmit
from .remote import KontextEdit, KontextModelInfo

NODES: list[type[io.ComfyNode]] = [
    KontextEdit,
    KontextSubmit,
    KontextCollect,
    KontextQueueStatus,
    KontextCancel,
    KontextHistory,
    KontextModelInfo,
    KontextImageToURI,
    KontextURIToImage,
    KontextEncodeImage,
    KontextDecodeImage,
    KontextLoadFP8,
    KontextLoRA,
    KontextPrepare,
    KontextRestore,
    KontextSample,
    KontextEditLocal,
    KontextKeep,
]


class KontextBridge(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES
