"""An account's own models: asleep and awake, waking and failing to, with what they cost by the hour, and their weights.

Where the service's documents are silent, this is the stand-in's choice: an edit is refused while its model does not
run, and wakes nothing; a model that is being woken may be put to sleep; waking costs as being awake does.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .storage import USERNAME, Files

KONTEXT, TEXT = "black-forest-labs/FLUX.1-Kontext-dev", "Qwen/Qwen3-8B"
REPOSITORY = (USERNAME, "my-edits")
USD_PER_HOUR = 4.87
# A LoRA that fits the demo model.
_LORA = Path(__file__).resolve().parent.parent / "kontext" / "demo" / "kontext_demo_lanterns_lora.safetensors"
_CREATED = 1760000000
_NAMES = {
    "ox-asleep-fern": "inactive",
    "ox-awake-birch": "active",
    "ox-waking-moss": "deploying",
    "ox-dozing-reed": "deactivating",
    "ox-broken-clay": "error",
    "ox-foggy-dale": "unknown",
    "ox-fails-to-wake": "inactive",
    "ox-never-wakes": "inactive",
    "ox-of-unknown-price": "inactive",
    "ox-writes-text": "inactive",
    "ox-new-clover": "",
    "ox-in-training": "",
}
PREFIX = "oxen:"
# Of those that edit pictures, as requests name them; one that was trained and never deployed is there once it is.
EDITING = tuple(PREFIX + name for name in _NAMES if name not in ("ox-writes-text", "ox-in-training"))


@dataclass(eq=False)
class AccountModel:
    """state: what `deployments` says, empty before the first deployment. since: when it came to be so.

    how: what comes of waking it: well, fails or never. wakings: how often it was started. awake_s: for how long it was
    billed in all, until it was last put to sleep. usd_per_hour: None where the model object tells no price.
    """

    name: str
    state: str
    base: str = KONTEXT
    how: str = "well"
    usd_per_hour: float | None = USD_PER_HOUR
    since: float = field(default_factory=time.time)
    billed_since: float | None = None
    awake_s: float = 0.0
    wakings: int = 0

    @property
    def id(self) -> str:
        return PREFIX + self.name

    def start(self) -> None:
        """Wake it, unless it is awake or about to be."""
        if self.state in ("active", "deploying"):
            return
        self.wakings += 1
        self._become("deploying")
        self.billed_since = time.time()

    def stop(self) -> None:
        """Put it to sleep."""
        if self.billed_since is not None:
            self.awake_s += time.time() - self.billed_since
            self.billed_since = None
        if self.state in ("active", "deploying", "error", "unknown"):
            self._become("deactivating")

    def settle(self, seconds: float) -> None:
        """What has come of it by now, where each change takes so long."""
        if time.time() - self.since < seconds:
            return
        if self.state == "deactivating":
            self._become("inactive")
        elif self.state == "deploying" and self.how != "never":
            self._become("error" if self.how == "fails" else "active")
            if self.state == "error":
                self.billed_since = None

    def _become(self, state: str) -> None:
        self.state, self.since = state, time.time()


class OwnModels:
    """The account's models by name. takes_s: for how long waking and falling asleep take.

    deploys: which of the two routes that deploy a fine-tune for the first time there are: "whole", "checkpoint".
    """

    def __init__(self, files: Files) -> None:
        self.takes_s = 0.3
        self.deploys = {"whole", "checkpoint"}
        self.models = {name: AccountModel(name, state) for name, state in _NAMES.items()}
        self.models["ox-writes-text"].base = TEXT
        self.models["ox-fails-to-wake"].how = "fails"
        self.models["ox-never-wakes"].how = "never"
        self.models["ox-of-unknown-price"].usd_per_hour = None
        for name in ("ox-waking-moss", "ox-awake-birch"):
            self.models[name].billed_since = time.time()
        files.repos[REPOSITORY] = False
        lora = _LORA.read_bytes() if _LORA.is_file() else b""
        for name in ("ox-asleep-fern", "ox-awake-birch", "ox-new-clover"):
            files.put(REPOSITORY, f"{name}/models/{name}/model.safetensors", lora)
        self.size = len(lora)

    def find(self, id: str) -> AccountModel | None:
        """The model of that id, with or without its prefix, as it is now; None before it was deployed."""
        model = self.models.get(id.removeprefix(PREFIX))
        if model is None or not model.state:
            return None
        model.settle(self.takes_s)
        return model

    def deployed(self) -> list[AccountModel]:
        return [model for name in self.models if (model := self.find(name)) is not None]

    def refuses(self, id: str) -> str | None:
        """Why no edit can be made with a model now; None for one that is awake, and for one that is nobody's own."""
        if id not in EDITING:
            return None
        model = self.find(id)
        if model is None:
            return f"Model not found: {id}"
        return None if model.state == "active" else f"Model {id} is not running: its deployment is {model.state}"

    def usd(self, name: str) -> float:
        """What its time awake costs until now."""
        model = self.models[name]
        running = 0.0 if model.billed_since is None else time.time() - model.billed_since
        return (model.awake_s + running) * (model.usd_per_hour or 0.0) / 3600


def model_object(model: AccountModel) -> dict[str, Any]:
    """As GET /api/ai/models/{id} gives it."""
    per_second = None if model.usd_per_hour is None else model.usd_per_hour / 3600
    return {
        "id": model.id,
        "object": "model",
        "created": _CREATED,
        "owned_by": USERNAME,
        "display_name": model.name,
        "description": "A model of the stand-in's own account.",
        "summary": None,
        "model_type": "custom",
        "endpoint": "/images/generate",
        "capabilities": {"input": ["text", "image"], "output": ["image"]},
        "pricing": {"method": "time", "cost_per_second": per_second, "cost_per_image": None},
        "fine_tuning": None,
        "deployments": [{"status": model.state}],
        "developer": None,
        "source_model": model.base,
        "request_schema": None,
    }


def fine_tune(model: AccountModel) -> dict[str, Any]:
    """As GET /api/user/fine_tunes and .../fine_tunes/{id} give it."""
    status = "running" if model.name == "ox-in-training" else "deployed" if model.state else "completed"
    return {
        "id": f"ft_{model.name}",
        "name": model.name,
        "base_model": model.base,
        "status": status,
        "repository": {"namespace": REPOSITORY[0], "name": REPOSITORY[1]},
        "deployed_model": {"id": model.id} if model.state else None,
        "error": None,
    }
