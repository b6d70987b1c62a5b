"""A stand-in that paints for every model, whatever it is asked, as long as it does not know the models itself."""

from __future__ import annotations

from typing import Any

import pytest
from kontext_bridge.oxen.api.models import bundled
from kontext_bridge.standin import generating, models, parameters, service


def play_all(patch: pytest.MonkeyPatch) -> None:
    """Have it do so until the patch is undone."""
    if "gpt-image-2" in parameters.SCHEMAS:
        return
    schema = {"type": "object", "required": [], "properties": {}}
    for name in set(bundled()) - {"flux-kontext-dev"}:
        patch.setitem(parameters.SCHEMAS, name, schema)
        patch.setitem(models.MODELS, name, models._model(name, name, "image", models._PER_IMAGE, schema))
    painted = service.edit_of({"model": "flux-kontext-dev", "prompt": "x", "output_format": "jpg", "seed": 1})
    for module in (service, generating):
        patch.setattr(module, "complaint", lambda *_, **__: None)
        patch.setattr(module, "picture_of", _first_picture)
    patch.setattr(service, "edit_of", lambda _: painted)


def _first_picture(params: Any) -> Any:
    for value in params.values() if isinstance(params, dict) else params:
        inside = _first_picture(value) if isinstance(value, list | dict) else value
        if isinstance(inside, str) and inside.startswith("data:"):
            return inside
    return None
