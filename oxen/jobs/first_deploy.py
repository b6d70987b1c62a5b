"""The first deployment of a fine-tune, which wakes it: asked for once, noted before, and its outcome never guessed."""

from __future__ import annotations

import time
from pathlib import Path

from ..api.client import Client
from ..api.own_models import FineTune, deploy
from ..control import Deadline
from ..errors import InvalidParameters, OutcomeUnknown, OxenError, UnexpectedReply, Upstream
from ..settings import Settings
from .awake import SETTLE_SECONDS, WakingNotes, check_limits
from .locks import hold

_PATIENCE = 120.0
_OPEN = (OutcomeUnknown, Upstream, UnexpectedReply)


def deploy_first(client: Client, home: Path, settings: Settings, tune: FineTune) -> str:
    """Deploy a finished fine-tune and give the id of its model, which is being woken then.

    Raises SpendLimitReached where a limit is set, InvalidParameters for one that is not finished or was asked for a
    moment ago, and as `own_models.deploy`.
    """
    if not tune.is_finished:
        raise InvalidParameters(f"{tune.name} is {tune.status or 'not finished'}: only a finished one can be deployed.")
    if not tune.repository:
        raise InvalidParameters(
            f"Oxen.ai does not say in which repository {tune.name} was trained, and it cannot be deployed from here "
            "without. Nothing was started. Deploy it on its page at Oxen.ai."
        )
    check_limits(settings, tune.name, "at a cost per hour that is told once it is deployed")
    notes = WakingNotes(home, client.account.base_url, tune.id)
    with hold(notes.folder, notes.name, client.control, Deadline(_PATIENCE)):
        if notes.woken_lately():
            raise InvalidParameters(
                f"{tune.name} was asked to be deployed from here less than {SETTLE_SECONDS:.0f} s ago. It was not "
                "asked again. Look at the list in a minute."
            )
        notes.write(woken_at=time.time())
        try:
            id = deploy(client, tune)
        except OxenError as error:
            if isinstance(error, _OPEN) and not error.definite:
                raise error.reworded(
                    f"{error.message} Whether {tune.name} is being deployed, and costs, is not known. Look at the list "
                    "in a minute, before you try again."
                ) from None
            notes.remove()
            raise
        WakingNotes(home, client.account.base_url, id).write(woken_at=time.time())
        notes.remove()
    return id
