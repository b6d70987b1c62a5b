"""The nodes of the pack: a schema each, and a few lines that call the rooms below. A new node is added to NODES.

types.py      the socket types of this pack
inputs.py     the inputs that several nodes have
checks.py     values that came over a link, checked
media.py      folders that a node names, below ComfyUI's own
sessions.py   this machine's account, settings and ledger, for what talks to the service
remote/       the nodes that ask Oxen.ai
local/        the nodes that sample on this machine
pictures/     the nodes that change or convert pictures
"""

from __future__ import annotations

from pathlib import Path

from comfy_api.latest import ComfyExtension, io

from .. import host
from .local.demo_model import KontextLoadDemo
from .local.fast_node import KontextFast
from .local.model import KontextEditLocal, KontextLoadFP8, KontextLoRA, KontextSample
from .pictures.conversions import KontextDecodeImage, KontextEncodeImage, KontextImageToURI, KontextURIToImage
from .pictures.keep import KontextKeep
from .pictures.prepare import KontextPrepare, KontextRestore
from .remote.edit import KontextEdit, KontextModelInfo
from .remote.edit_folder import KontextEditFolder
from .remote.edit_picture import OxenEdit, OxenSubmit
from .remote.history import KontextHistory
from .remote.queue import KontextCancel, KontextCollect, KontextQueueStatus, KontextSubmit
from .remote.your_models import OxenModels

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
    KontextLoadDemo,
    OxenEdit,
    OxenSubmit,
    OxenModels,
    KontextFast,
    KontextEditFolder,
]


TEMPLATES = Path(__file__).resolve().parents[1] / "example_workflows"


class KontextBridge(ComfyExtension):
    async def on_load(self) -> None:
        host.bring_pictures(TEMPLATES)

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES
