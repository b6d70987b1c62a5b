"""What is promised of Kontext holds for a model without prompt, without seed, with several pictures, with a grid."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kontext_bridge.oxen.api import models
from kontext_bridge.oxen.api.replies import read_history, read_model, read_rows
from kontext_bridge.oxen.api.request import Beside, EditParameters
from kontext_bridge.oxen.errors import SpendLimitReached
from kontext_bridge.oxen.jobs.ledger import Ledger
from kontext_bridge.oxen.jobs.lookup import Found, Perhaps, look_up
from kontext_bridge.oxen.jobs.record import Record, request_key
from kontext_bridge.oxen.jobs.spend import SpendGuard
from kontext_bridge.oxen.settings import Settings

BASE = "https://hub.oxen.ai"
MODELS = models.bundled()


def uri(kind: int) -> str:
    """A data URI as pictures are sent: a PNG, as far as its beginning and its end go."""
    png = b"\x89PNG\r\n\x1a\n" + bytes([kind]) * 100 + b"\0\0\0\0IEND\xaeB`\x82"
    return "data:image/png;base64," + base64.b64encode(png).decode()


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(tmp_path)
    yield ledger
    ledger.close()


def lost(ledger: Ledger, parameters: EditParameters, picture: str, beside: Beside | None = None) -> Record:
    """The record of a request whose answer never came."""
    also = beside or Beside()
    key = request_key(BASE, parameters, picture + "".join(also.all))
    record = ledger.open(key, parameters, picture, None, beside=also.all, clock_offset=0.0)
    assert record is not None
    ledger.leaving(record)
    found = ledger.by_id(record.id)
    assert found is not None
    return found


def entry(record: Record, pictures: dict[str, Any], number: int = 1) -> dict[str, Any]:
    """The job that the service lists of a request."""
    return {
        **record.parameters,
        **pictures,
        "generation_id": f"job-{number}",
        "status": "processing",
        "model_name": record.parameters["model"],
        "enqueued_at": int(record.created_at),
    }


def looked_up(ledger: Ledger, record: Record, *entries: dict[str, Any]) -> Any:
    def history(**_: Any) -> Any:
        return read_history({"generations": list(entries), "total_pages": 1, "page_number": 1})

    def active(**_: Any) -> Any:
        return read_rows({"generations": []})

    client: Any = SimpleNamespace(history=history, active=active)
    return look_up(client, ledger, record)


def test_a_lost_request_without_prompt_and_seed_is_known_again_by_its_picture(ledger: Ledger) -> None:
    record = lost(ledger, EditParameters(MODELS["topazlabs-image-upscale"], scale="4x"), uri(1))
    own = entry(record, {"input_image": uri(1)})
    assert isinstance(looked_up(ledger, record, own), Found)
    assert isinstance(looked_up(ledger, record, own | {"input_image": uri(2)}), Perhaps), "one thing alone speaks"
    assert isinstance(looked_up(ledger, record, own | {"upscale_factor": "2x"}), Perhaps)


def test_of_two_alike_variations_that_are_both_lost_neither_takes_the_others_job(ledger: Ledger) -> None:
    parameters = EditParameters(MODELS["topazlabs-image-upscale"])
    first, second = (lost(ledger, parameters.variation(n), uri(1)) for n in range(2))
    assert first.key != second.key
    assert isinstance(looked_up(ledger, second, entry(first, {"input_image": uri(1)})), Perhaps)


def test_a_lost_request_with_several_pictures_and_a_mask_is_known_again_by_all_of_them(ledger: Ledger) -> None:
    parameters = EditParameters(MODELS["gpt-image-2"], prompt="a red boat", resolution="1K")
    beside = Beside((uri(2),), uri(3))
    record = lost(ledger, parameters, uri(1), beside)
    sent = parameters.pictures(uri(1), beside)
    assert sent == {"input_image": [uri(1), uri(2)], "mask_url": uri(3)}
    own = entry(record, sent)
    assert isinstance(looked_up(ledger, record, own), Found)
    assert isinstance(looked_up(ledger, record, own | {"mask_url": None}), Perhaps), "an echo may leave something out"
    for other in ({"input_image": [uri(1), uri(4)]}, {"mask_url": uri(4)}):
        assert isinstance(looked_up(ledger, record, own | other), Perhaps)


def test_what_is_sent_beside_a_picture_makes_another_request_of_it_and_its_variation_too() -> None:
    spec = MODELS["krea-v2-large-text-to-image"]
    weak, strong = (EditParameters(spec, prompt="x", aspect_ratio="1:1", strength=one) for one in (0.3, 1.0))
    assert request_key(BASE, weak, "p") != request_key(BASE, strong, "p"), "it stands beside each picture"
    seedless = EditParameters(MODELS["nano-banana"], prompt="x", aspect_ratio="1:1")
    keys = {request_key(BASE, seedless.variation(n), "p") for n in (0, 0, 1)}
    assert len(keys) == 2 and request_key(BASE, seedless, "p") in keys
    assert seedless.variation(1).body() == seedless.body(), "the number is ours and is not sent"


def guard(ledger: Ledger, model: str, pricing: Any, **limits: str) -> tuple[SpendGuard, EditParameters]:
    class Service:
        account = SimpleNamespace(base_url=f"https://{json.dumps(pricing)}")

        def model(self, name: str) -> Any:
            return read_model({"id": name, "pricing": pricing})

    settings = Settings(**{name: Decimal(usd) for name, usd in limits.items()})
    client: Any = Service()
    spec = MODELS[model]
    needs = {"prompt": "x"} if "prompt" in spec.named else {}
    return SpendGuard(client, ledger, settings, "run"), EditParameters(spec, **needs)


def test_a_limit_is_held_against_the_price_of_the_quality_and_size_asked_for(ledger: Ledger) -> None:
    grid = {"low": {"1K": 0.004, "2K": 0.009}, "high": {"1K": 0.13, "2K": 0.29}}
    pricing = {"method": "per_image", "cost_per_image": None, "cost_per_image_grid": grid}
    held, dear = guard(ledger, "gpt-image-2", pricing, usd_per_run="0.20")
    cheap = dear.changed(quality="low", resolution="1K")
    held.check(2, cheap.priced)
    assert held.price(cheap.priced) == Decimal("0.004")
    with pytest.raises(SpendLimitReached, match=r"1 new picture at \$0\.29 would bring this run to \$0\.298"):
        held.check(1, dear.priced)


@pytest.mark.parametrize(
    "pricing",
    [
        None,
        {"method": "per_provider_credit", "cost_per_credit": 0.08},
        {"method": "per_image", "cost_per_image": 0.05, "cost_per_image_grid": {"high": {"8K": 9}}},
    ],
)
def test_a_price_that_is_not_known_for_certain_is_refused_where_a_limit_is_set(ledger: Ledger, pricing: Any) -> None:
    held, asked = guard(ledger, "topazlabs-wonder-3-5-image", pricing, usd_per_run="5")
    with pytest.raises(SpendLimitReached, match="publishes no price per picture for topazlabs-wonder-3-5-image"):
        held.check(1, asked.priced)
