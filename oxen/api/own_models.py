"""An account's own models: what they are and whether they are awake; waking them, putting them to sleep, deploying.

From the service's documents (models, fine-tuning) and its published specification; none of it was seen live. Both know
`activate` and `deactivate` for a model that was deployed before. For the first deployment of a fine-tune they name two
different routes, of which either may be missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import Any
from urllib.parse import quote

from ..errors import InvalidParameters, ModelNotFound, OxenError, UnexpectedReply
from .client import Client
from .prices import read_amount

SECONDS_OF_AN_HOUR = 3600
_CENTS = Decimal("0.01")
# By which an object says what model it stands for; its id may be a number.
_BASES = ("canonical_name", "name", "id")
_PREFIX = "oxen:"
_PAGE = 100
_MOST_PAGES = 20
_ACT_SECONDS = 30.0
_LINGER_SECONDS = 3.0
_LONGEST_ID = 200
_SHOWN = 200


class Deployment(str, Enum):
    """Whether a model is awake, in the service's words; NONE is a fine-tune that was never deployed."""

    ACTIVE = "active"
    INACTIVE = "inactive"
    DEPLOYING = "deploying"
    DEACTIVATING = "deactivating"
    ERROR = "error"
    UNKNOWN = "unknown"
    NONE = "never deployed"

    @property
    def word(self) -> str:
        """For people."""
        return _WORDS[self]


_WORDS = {
    Deployment.ACTIVE: "awake",
    Deployment.INACTIVE: "asleep",
    Deployment.DEPLOYING: "waking",
    Deployment.DEACTIVATING: "falling asleep",
    Deployment.ERROR: "failed to wake",
    Deployment.UNKNOWN: "in a state that Oxen.ai does not know",
    Deployment.NONE: "never deployed",
}


@dataclass(frozen=True)
class OwnModel:
    """id: as requests name it. base: what it was trained from, in the service's words; empty where it does not say.

    usd_per_second: what it costs while it is awake; None where that is not told.
    """

    id: str
    name: str
    owner: str
    base: str
    state: Deployment
    usd_per_second: Decimal | None = None

    @property
    def usd_per_hour(self) -> Decimal | None:
        if self.usd_per_second is None:
            return None
        return (self.usd_per_second * SECONDS_OF_AN_HOUR).quantize(_CENTS)

    @property
    def price(self) -> str:
        """What being awake costs, for people."""
        per_hour = self.usd_per_hour
        return "at a cost per hour that Oxen.ai does not tell" if per_hour is None else f"${per_hour} an hour"


@dataclass(frozen=True)
class FineTune:
    """A training. repository: NAMESPACE/NAME, empty where the service does not say. model: the id of what was deployed
    from it, empty where nothing was.
    """

    id: str
    name: str
    base: str
    status: str
    repository: str = ""
    model: str = ""

    @property
    def is_finished(self) -> bool:
        return self.status in ("completed", "deployed")


def is_kontext(base: str) -> bool:
    """Whether a base, in whichever of the service's spellings, is FLUX.1 Kontext."""
    return "kontext" in base.lower()


def own_models(client: Client) -> tuple[OwnModel, ...]:
    """The models that the key may use and that are nobody's base model."""
    reply = client.transport.redact.value(client.transport.send("GET", "/api/ai/models").json())
    data = reply.get("data") if isinstance(reply, Mapping) else None
    if not isinstance(data, list):
        raise UnexpectedReply("Oxen.ai answered without a list of models.")
    return tuple(_read(one) for one in data if _is_own(one))


def fine_tunes(client: Client) -> tuple[FineTune, ...]:
    """All trainings that the key may see, the newest first."""
    found: list[FineTune] = []
    for page in range(1, _MOST_PAGES + 1):
        params: dict[str, str | int] = {"page": page, "page_size": _PAGE}
        answer = client.transport.send("GET", "/api/user/fine_tunes", params=params)
        reply = client.transport.redact.value(answer.json())
        told = reply.get("fine_tunes") if isinstance(reply, Mapping) else None
        if not isinstance(told, list):
            raise UnexpectedReply("Oxen.ai answered without a list of fine-tunes.")
        new = [one for one in map(_read_fine_tune, told) if one is not None and one not in found]
        found += new
        if len(told) < _PAGE or not new:
            break
    return tuple(found)


def look_at(client: Client, id: str, *, within: float | None = None) -> OwnModel:
    """A model as it is at this moment; raises ModelNotFound, and InvalidParameters for a base model.

    within: one try of so many seconds. What the id of a model looks like in a path is not told: one that is not known
    with `oxen:` is asked for without, and the other way round.
    """
    for spelled in _spellings(checked_id(client, id)):
        patience: dict[str, Any] = {} if within is None else {"seconds": within, "patient": False}
        try:
            reply = client.transport.send("GET", _path(spelled), params={"deployment_status": "live"}, **patience)
        except ModelNotFound:
            continue
        told = client.transport.redact.value(reply.json())
        if not _is_own(told):
            name = told.get("id") if isinstance(told, Mapping) else None
            raise InvalidParameters(
                f"{name or id} is no model of your own: it is always awake, and stands in the list by itself. Nothing "
                "was sent."
            )
        return _read(told)
    raise ModelNotFound(
        f"Oxen.ai has no model of yours named {id[:_SHOWN]!r}. Copy its id from Kontext Models. A fine-tune that was "
        "never deployed has none yet: Kontext Models deploys it. Nothing was sent, nothing was charged.",
        status=404,
    )


def activate(client: Client, id: str) -> OwnModel:
    """Wake a model; it is billed from then on. Sent once.

    Raises OutcomeUnknown and errors that are not `definite` where it may have been woken.
    """
    return _act(client, id, "activate")


def deactivate(client: Client, id: str) -> OwnModel:
    """Put a model to sleep, which ends its billing; as `activate`."""
    return _act(client, id, "deactivate")


def deploy(client: Client, tune: FineTune) -> str:
    """Deploy a finished fine-tune for the first time, which wakes it, and give the id of its model.

    By the route of its last checkpoint, which the specification has and which names the ordinary instance; where the
    service itself says that there is none, and shows that nothing was begun, by the route of the tutorials. Each is
    sent once. Raises as `activate`.
    """
    root = f"/api/repos/{quote(tune.repository)}/fine_tunes/{quote(tune.id, safe='')}"
    step = _last_step(client, root)
    if step is not None:
        try:
            return _deployed(client, f"{root}/checkpoints/{step}/deploy", {"deployment_type": "normal"}, tune)
        except ModelNotFound as missing:
            begun = _model_of(client, root)
            if begun:
                return begun
            if not missing.definite:
                raise _unsure(missing) from None
    try:
        return _deployed(client, f"{root}/deploy", None, tune)
    except ModelNotFound as missing:
        begun = _model_of(client, root)
        if begun:
            return begun
        raise missing.reworded(
            f"Oxen.ai has neither of the two routes for deploying {tune.name} that its documents name. Nothing was "
            "started, nothing was charged. Deploy it on its page at Oxen.ai; then it is in Kontext Models."
        ) from None


def checked_id(client: Client, id: str) -> str:
    """The id without what stands around it; raises InvalidParameters for what can be none, the key above all."""
    plain = id.strip()
    if not plain or not plain.strip("./") or len(plain) > _LONGEST_ID or not plain.isprintable():
        raise InvalidParameters(
            "The id of a model of your own is missing or cannot be one. Kontext Models lists them. Nothing was sent."
        )
    if client.transport.redact(plain) != plain:
        raise InvalidParameters("The API key, or a piece of it, was given for the id of a model. It was not sent.")
    return plain


def _act(client: Client, id: str, what: str) -> OwnModel:
    path = f"{_path(id)}/{what}"
    reply = client.transport.send("POST", path, paid=True, seconds=_ACT_SECONDS, lingers=_LINGER_SECONDS)
    return _read(client.transport.redact.value(reply.json()))


def _deployed(client: Client, path: str, body: Mapping[str, Any] | None, tune: FineTune) -> str:
    reply = client.transport.send("POST", path, json=body, paid=True, lingers=_LINGER_SECONDS)
    told = client.transport.redact.value(reply.json())
    said = told if isinstance(told, Mapping) else {}
    model, deployment = said.get("model"), said.get("deployment")
    is_object = isinstance(model, Mapping) and model.get("object") == "model"
    # of a model object the id is what requests name it by; of a mere record it may be its number
    for id in (_named(model) if is_object else _name_of(model), _named(model), _slug(deployment)):
        if id:
            return id
    raise UnexpectedReply(
        f"Oxen.ai accepted the deployment of {tune.name} and did not say which model it is. It is being started, and "
        "costs: look for it in Kontext Models."
    )


def _last_step(client: Client, root: str) -> int | None:
    """The step of the last checkpoint; None where the service lists none."""
    try:
        told = client.transport.send("GET", f"{root}/checkpoints").json()
    except ModelNotFound:
        return None
    listed = told.get("checkpoints") if isinstance(told, Mapping) else None
    steps = [one.get("step") for one in (listed if isinstance(listed, list) else []) if isinstance(one, Mapping)]
    return max((step for step in steps if isinstance(step, int) and not isinstance(step, bool)), default=None)


def _model_of(client: Client, root: str) -> str:
    """The model that was deployed from a fine-tune; empty where there is none, or the service does not know it."""
    try:
        told = client.transport.redact.value(client.transport.send("GET", root).json())
    except ModelNotFound:
        return ""
    tune = _read_fine_tune(told.get("fine_tune") if isinstance(told, Mapping) else None)
    return "" if tune is None else tune.model


def _unsure(error: OxenError) -> OxenError:
    return error.reworded(
        f"{error.message} Whether that is Oxen.ai's own word is not certain, so that it was not deployed by the other "
        "route either. Look at Kontext Models before you try again."
    )


def _spellings(id: str) -> tuple[str, ...]:
    return (id, id.removeprefix(_PREFIX)) if id.startswith(_PREFIX) else (id, _PREFIX + id)


def _path(id: str) -> str:
    return f"/api/ai/models/{quote(id, safe='')}"


def _is_own(told: Any) -> bool:
    if not isinstance(told, Mapping) or not _text(told.get("id")):
        return False
    return told.get("model_type") == "custom" or (told.get("model_type") != "base" and bool(told.get("deployments")))


def _read(told: Any) -> OwnModel:
    if not isinstance(told, Mapping) or not _text(told.get("id")):
        raise UnexpectedReply("Oxen.ai answered with something that is no model.")
    deployments, pricing = told.get("deployments"), told.get("pricing")
    first = deployments[0] if isinstance(deployments, list) and deployments else None
    timed = isinstance(pricing, Mapping) and pricing.get("method", "time") == "time"
    return OwnModel(
        id=str(told["id"]),
        name=_text(told.get("display_name")) or str(told["id"]),
        owner=_text(told.get("owned_by")),
        base=_named(told.get("source_model"), _BASES),
        state=_state(first),
        usd_per_second=read_amount(pricing.get("cost_per_second")) if timed and isinstance(pricing, Mapping) else None,
    )


def _state(deployment: Any) -> Deployment:
    status = deployment.get("status") if isinstance(deployment, Mapping) else deployment
    try:
        return Deployment(status.strip().lower()) if isinstance(status, str) else Deployment.UNKNOWN
    except ValueError:
        return Deployment.UNKNOWN


def _read_fine_tune(told: Any) -> FineTune | None:
    if not isinstance(told, Mapping) or not _text(told.get("id")):
        return None
    id, repository = str(told["id"]), told.get("repository")
    if isinstance(repository, Mapping):
        parts = (_name_of(repository.get("namespace")), _text(repository.get("name")))
        repository = "/".join(parts) if all(parts) else ""
    return FineTune(
        id=id,
        name=_text(told.get("name")) or id,
        base=_text(told.get("base_model")) or _named(told.get("source_model"), _BASES),
        status=_text(told.get("status")).lower(),
        repository=_text(repository),
        model=_named(told.get("deployed_model")),
    )


def _named(value: Any, names: tuple[str, ...] = ("id", "canonical_name", "name")) -> str:
    """The name of what is told by its name, or as an object that has one."""
    if isinstance(value, Mapping):
        return next((text for name in names if (text := _text(value.get(name)))), "")
    return _text(value)


def _name_of(value: Any) -> str:
    return _named(value, ("canonical_name", "name"))


def _slug(deployment: Any) -> str:
    return _named(deployment, ("model_slug",))


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""
