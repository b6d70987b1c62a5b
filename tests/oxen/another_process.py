"""What a second process does in these tests: `edit PROMPT SEED WAIT`, `submit PROMPT SEED` or `collect ID...`.

Prints one JSON line; the service, the key and the ledger's folder come from the environment.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import sys

from kontext_bridge import host
from kontext_bridge.oxen.api.request import EditParameters
from kontext_bridge.oxen.choices import WaitMode
from kontext_bridge.oxen.credentials import find_account
from kontext_bridge.oxen.jobs.batch import Batch
from kontext_bridge.oxen.jobs.order import Edit, Terms
from kontext_bridge.oxen.jobs.session import Session
from kontext_bridge.oxen.settings import load_settings
from PIL import Image


def size_of(data: bytes) -> list[int]:
    try:
        with Image.open(io.BytesIO(data)) as picture:
            picture.load()
            return list(picture.size)
    except OSError as error:
        raise ValueError(str(error)) from error


def picture() -> str:
    out = io.BytesIO()
    Image.linear_gradient("L").resize((48, 32)).convert("RGB").save(out, "PNG")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def edit_of(prompt: str, seed: str) -> Edit:
    uri = picture()
    parameters = EditParameters(prompt=prompt, seed=int(seed), output_format="jpg")
    return Edit(parameters, hashlib.sha256(uri.encode()).hexdigest(), lambda: uri)


def main(what: str, *arguments: str) -> None:
    folder = host.user_folder()
    with Session(find_account(folder), folder, load_settings(folder)) as session:
        if what == "collect":
            records = [session.ledger.adopt(generation_id) for generation_id in arguments]
            outcomes = Batch(session, size_of, Terms(wait=WaitMode.POLLING)).collect(records)
        else:
            prompt, seed, *wait = arguments
            mode = WaitMode(wait[0]) if wait else WaitMode.EVENTS
            terms = Terms(wait=mode, submit_only=what == "submit")
            outcomes = Batch(session, size_of, terms).edit([edit_of(prompt, seed)])
    told = [
        {
            "how": outcome.how and outcome.how.value,
            "id": outcome.record and outcome.record.generation_id,
            "size": outcome.picture,
            "error": outcome.error and str(outcome.error),
        }
        for outcome in outcomes
    ]
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
