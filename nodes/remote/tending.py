"""What Kontext Models does: lists the account's own models, wakes one, puts one to sleep, brings its weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ... import host
from ...kontext.checkpoint.lora_file import remark_on
from ...kontext.errors import KontextError
from ...oxen.api.own_models import Deployment, FineTune, OwnModel, fine_tunes, is_kontext, look_at, own_models
from ...oxen.choices import Tend
from ...oxen.errors import InvalidParameters, ModelNotFound, OxenError, Unauthenticated
from ...oxen.jobs.awake import Awake, Rule, WakingNotes, put_to_sleep
from ...oxen.jobs.first_deploy import deploy_first
from ...oxen.jobs.progress import Progress
from ...oxen.jobs.session import Session
from ...oxen.jobs.weights import NotWeights, bring, find_fine_tune, weights_of
from ..checks import member, text
from ..sessions import home, in_session

_SLEEP_SECONDS = 60.0
_NONE = (
    "There is no model of your own in this account yet. Training one is done at Oxen.ai; a fine-tune of FLUX.1 Kontext "
    "[dev] then stands here."
)
_NO_ID = (
    "No fine-tune of FLUX.1 Kontext [dev] in this account is deployed, so that there is no model_id for Edit Picture. "
    "Nothing was sent. Kontext Models lists what there is, and deploys a finished fine-tune by waking it."
)


@dataclass(frozen=True)
class Tended:
    """ids: of the account's fine-tunes of Kontext; where there is none, one that is blocked: ComfyUI breaks on an empty
    list. text: what was done, and one model a line."""

    ids: list[Any]
    info: str
    text: str


async def tend(action: str, model_id: str, node_id: str | None) -> Tended:
    """Do what is asked with a model, then list all; raises OxenError, KontextError and what stands for Cancel."""
    asked, id = member(Tend, action, "action"), text(model_id, "model_id").strip()
    if asked is not Tend.LIST and not id:
        raise InvalidParameters(
            f"{asked.value}: which one? Write its id into model_id, as the list shows it. Nothing was sent."
        )
    progress = Progress(1)

    def work(session: Session) -> Tended:
        did = _DOES[asked](session, id, progress) if asked in _DOES else ""
        progress.preparing("looking at your models")
        return _listed(session, did)

    tended = await in_session(work, progress=progress, node_id=node_id)
    if node_id is not None:
        host.Voice(node_id).say(tended.text.partition("\n")[0])
    return tended


def _wake(session: Session, id: str, progress: Progress) -> str:
    try:
        look_at(session.client, id)
    except ModelNotFound:
        tune = find_fine_tune(fine_tunes(session.client), id)
        if tune is None or tune.model:
            raise
        progress.preparing(f"deploying {tune.name}: billed by the hour from now on")
        id = deploy_first(session.client, home(), session.settings, tune)
    awake = Awake(session.client, home(), session.settings, Rule(id, wakes=True, sleeps=False), say=progress.preparing)
    try:
        awake.wake()
    except OxenError as error:
        if awake.told.get("woken"):
            raise error.reworded(f"{error.message} It was not put to sleep; look at the list.") from None
        raise
    finally:
        awake.leave()
    usd = awake.told.get("usd_per_hour")
    costs = f"${usd:.2f} an hour" if usd is not None else "an amount per hour that Oxen.ai does not tell"
    return f"{id} is awake, and costs {costs} until it is put to sleep."


def _sleep(session: Session, id: str, progress: Progress) -> str:
    model = look_at(session.client, id)
    progress.preparing(f"putting {model.id} to sleep")
    why = put_to_sleep(session.client, model.id, _SLEEP_SECONDS)
    if why is not None:
        raise InvalidParameters(
            f"{model.id} was not put to sleep: {why.rstrip('.')}. It goes on being billed: {model.price}. "
            "Run again, or put it to sleep on its page at Oxen.ai."
        )
    for spelled in {id, model.id}:
        WakingNotes(home(), session.client.account.base_url, spelled).remove()
    return f"{model.id} is asleep, and costs nothing."


def _bring(session: Session, id: str, progress: Progress) -> str:
    folder = host.model_folder("loras")
    if folder is None:
        raise InvalidParameters(
            "Only ComfyUI has a folder models/loras. Without it, run: python -m kontext_bridge.models fetch ID --to "
            "FOLDER. Nothing was brought."
        )
    weights = weights_of(session.client, id)

    def at(size: int, whole: int | None) -> None:
        of = "" if whole is None else f" of {whole >> 20}"
        progress.preparing(f"bringing {weights.name}: {size >> 20}{of} MB")

    brought = bring(session.client, session.fetcher, weights, folder, checked, at)
    came = f"came, {brought.size / 2**20:.1f} MB" if brought.is_new else "was there already"
    told = f"{brought.path.name} {came}: in models/loras, for Kontext LoRA and Load LoRA. Press R to see it there."
    return f"{told} {remark_on(brought.path)}".strip()


def checked(path: Path) -> None:
    """Raises NotWeights for a file that is no sound safetensors file."""
    try:
        remark_on(path)
    except KontextError as error:
        raise NotWeights(str(error).replace(path.name, "What came")) from None


_DOES = {Tend.WAKE: _wake, Tend.SLEEP: _sleep, Tend.BRING: _bring}


def _listed(session: Session, did: str) -> Tended:
    models = own_models(session.client)
    note = ""
    try:
        tunes = fine_tunes(session.client)
    except Unauthenticated:
        raise
    except OxenError as error:
        tunes, note = (), f"The list of fine-tunes could not be had: {error.line}"
    known = {model.id.removeprefix("oxen:") for model in models}
    undeployed = [one for one in tunes if not one.model and one.name not in known]
    told = [_entry(session, model) for model in models] + [_tune_entry(one) for one in undeployed]
    lines = [_line(entry) for entry in told] or [_NONE]
    ids = [model.id for model in models if is_kontext(model.base) or not model.base]
    info = {"models": told, **({"done": did} if did else {}), **({"note": note} if note else {})}
    return Tended(
        ids or [host.blocked(_NO_ID)], json.dumps(info, indent=2), "\n".join(filter(None, (did, *lines, note)))
    )


def _entry(session: Session, model: OwnModel) -> dict[str, Any]:
    usd = model.usd_per_hour
    here = WakingNotes(home(), session.client.account.base_url, model.id).read() is not None
    return {
        "id": model.id,
        "name": model.name,
        "owner": model.owner,
        "base": model.base or None,
        "state": model.state.value,
        "usd_per_hour": None if usd is None else float(usd),
        "for_edit_picture": is_kontext(model.base) or not model.base,
        "woken_from_here": here and model.state in (Deployment.ACTIVE, Deployment.DEPLOYING),
    }


def _tune_entry(tune: FineTune) -> dict[str, Any]:
    return {
        "id": f"{tune.repository}/{tune.name}" if tune.repository else tune.id,
        "name": tune.name,
        "base": tune.base or None,
        "state": Deployment.NONE.value,
        "training": tune.status or None,
        "usd_per_hour": None,
        "for_edit_picture": False,
        "woken_from_here": False,
    }


def _line(entry: dict[str, Any]) -> str:
    state = Deployment(entry["state"])
    usd = entry["usd_per_hour"]
    costs = f"${usd:.2f} an hour awake" if usd is not None else "cost per hour not known"
    trained = f"training {entry['training']}" if entry.get("training") else ""
    base = (entry["base"] or "base not told").rpartition("/")[2]
    mark = "woken from here" if entry["woken_from_here"] else ""
    parts: Sequence[str] = (entry["id"], state.word, trained, base, "" if trained else costs, mark)
    return "  ".join(filter(None, parts))
