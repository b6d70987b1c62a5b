"""The MODEL under a ComfyUI after 0.33, whose compiler settles what to do before wrappers of a step are called.

Such a ComfyUI is pretended: the setting that it has, and a forward that looks at it where its own does. What it would
have done with a model that it compiles is that the run ends, as it does there.
"""

from __future__ import annotations

from typing import Any

import pytest
from questions import INSIDE, SAME, Ask, question

if INSIDE:
    from contextlib import contextmanager
    from unittest import mock

    import comfy.cli_args
    import comfy.ldm.flux.model
    from inside import apart, dense, ours, run
    from kontext_bridge.kontext.comfyui.uncompiled import without_compiler

pytestmark = pytest.mark.comfyui


@question
def under_a_later_comfyui() -> Any:
    settings, seen = comfy.cli_args.args, []

    @contextmanager
    def later(disabled=False):
        kind = comfy.ldm.flux.model.Flux
        real = kind.forward

        def forward(self, *given, **named):
            compiles = not settings.disable_comfy_compiler
            seen.append(compiles)
            if compiles and hasattr(self, "kontext_bridge_steps"):
                raise RuntimeError("aimdo memory compile error")
            return real(self, *given, **named)

        assert not hasattr(settings, "disable_comfy_compiler")
        settings.disable_comfy_compiler = disabled
        try:
            with mock.patch.object(kind, "forward", forward):
                yield
        finally:
            del settings.disable_comfy_compiler

    def compiled_in(model, **how):
        seen.clear()
        run(model, **how)
        return sorted(set(seen)), settings.disable_comfy_compiler

    def ended(model):
        with mock.patch.object(comfy.ldm.flux.model.Flux, "forward", side_effect=OSError("a step that fails")):
            try:
                run(model)
            except OSError:
                return settings.disable_comfy_compiler

    model, before = ours(), run(ours())
    with later():
        told = {
            "apart": apart(run(model), before),
            "ours": compiled_in(model),
            "two calls a step": compiled_in(model, sampler="heun"),
            "a clone": compiled_in(model.clone()),
            "another's": compiled_in(dense()),
            "failed": ended(model),
        }
        with without_compiler():
            told["one within another"] = compiled_in(model)
        told["after both"] = settings.disable_comfy_compiler
    with later(disabled=True):
        told["switched off by the user"] = compiled_in(model)
    return told


def test_steps_that_a_later_comfyui_compiles_are_noticed(ask: Ask) -> None:
    told = ask(under_a_later_comfyui)
    assert told["apart"] < SAME
    for which in ("ours", "two calls a step", "a clone"):
        assert told[which] == [[False], False], which


def test_a_compiler_that_stays_off_after_a_run_or_for_another_model_is_noticed(ask: Ask) -> None:
    told = ask(under_a_later_comfyui)
    assert told["another's"] == [[True], False]
    assert told["failed"] is False
    assert told["one within another"] == [[False], True] and told["after both"] is False


def test_a_compiler_that_a_run_switches_on_again_is_noticed(ask: Ask) -> None:
    assert ask(under_a_later_comfyui)["switched off by the user"] == [[False], True]
