"""The MODEL inside a real ComfyUI, held to ComfyUI's own on the same numbers in float32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tiny_models import LAYOUTS, TINY

pytestmark = pytest.mark.comfyui
Probe = Callable[..., Any]
# fp32 against fp32, after a few steps
SAME = 1e-5


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_that_samples_another_picture_than_its_numbers_do_is_noticed(layout: str, probe: Probe) -> None:
    assert probe()["layouts"][layout]["ours"] < SAME


@pytest.mark.parametrize("layout", ["per_row", "diffusers_scaled"])
def test_the_stock_loader_ruins_what_is_read_right_here(layout: str, probe: Probe) -> None:
    assert probe()["layouts"][layout]["stock"] > 1, "the stock loader has learnt this layout: the README can say so"


def test_a_device_without_fp8_arithmetic_that_uses_it_all_the_same_is_noticed(probe: Probe) -> None:
    assert probe()["products"] == {"auto": 0, "storage": 0}
    assert "multiplied in wider numbers" in probe()["description"]
    assert "Set compute to auto or bf16" in probe()["fp8_demanded"]


def test_fp8_arithmetic_that_is_not_used_or_strays_is_noticed(probe: Probe) -> None:
    answers = probe("--supports-fp8-compute")
    assert answers["products"] == {"auto": 21 + 11, "storage": 0}, (
        "the rows of every block layer, of one in two parts, and their mean where they come from a layer norm"
    )
    assert answers["fp8_demanded"] is None
    assert answers["twenty_steps"] < 5e-3


@pytest.mark.parametrize("layout", LAYOUTS)
def test_fp8_arithmetic_that_strays_in_one_layout_is_noticed(layout: str, probe: Probe) -> None:
    assert probe("--supports-fp8-compute")["layouts"][layout]["ours"] < 1e-2


@pytest.mark.parametrize("layout", LAYOUTS)
def test_tensor_wise_products_that_stray_in_one_layout_are_noticed(layout: str, probe: Probe) -> None:
    assert probe("--supports-fp8-compute")["without_row_wise_products"]["apart"][layout] < 1e-2


def test_a_product_that_is_taken_without_a_word_why_is_noticed(probe: Probe) -> None:
    told = probe("--supports-fp8-compute")["without_row_wise_products"]["info"]
    assert "FP8 product: tensor-wise" in told and "row-wise is not built here" in told
    assert "No FP8 arithmetic" in probe()["description"]


def test_a_product_that_fails_after_loading_and_ends_the_edit_is_noticed(probe: Probe) -> None:
    told = probe("--supports-fp8-compute")["a_product_that_fails_later"]
    assert told["apart"] < SAME
    assert "no kernel for this GPU" in told["demanded"]


def test_fp8_on_a_device_without_8_bit_floats_is_noticed(probe: Probe) -> None:
    told = probe()["without_8_bit_floats"]
    assert "has no 8-bit floats" in told["refused"] and "16-bit file" in told["refused"]
    assert told["apart"] < SAME and told["kept"] == ["torch.bfloat16"]
    assert "no 8-bit floats" in told["info"]


@pytest.mark.parametrize("layout", ["legacy", "bfloat16", "plain"])
def test_fp8_arithmetic_that_is_worse_than_the_stock_one_is_noticed(layout: str, probe: Probe) -> None:
    figures = probe("--supports-fp8-compute")["layouts"][layout]
    assert figures["ours"] < figures["stock"]


def test_a_file_that_asks_for_full_precision_and_is_multiplied_in_fp8_is_noticed(probe: Probe) -> None:
    layouts = probe("--supports-fp8-compute")["layouts"]
    assert layouts["legacy_full_precision"]["ours"] < SAME
    assert layouts["comfy_quant_full_precision"]["ours"] < SAME


@pytest.mark.parametrize("question", ["two_references", "upscaled", "classifier_free_guidance", "weight_wrapper"])
def test_a_stock_graph_that_gives_another_picture_is_noticed(question: str, probe: Probe) -> None:
    assert probe()[question] < SAME


def test_a_sampler_that_gives_another_picture_is_noticed(probe: Probe) -> None:
    assert all(figure < SAME for figure in probe()["other_samplers"].values())


def test_another_model_loaded_in_between_that_leaves_a_trace_is_noticed(probe: Probe) -> None:
    assert probe()["another_model_in_between"] is True


def test_a_second_run_that_loads_the_model_again_is_noticed(probe: Probe) -> None:
    assert probe()["loads_of_two_runs"] == 1


@pytest.mark.parametrize("name", ["kohya", "diffusers"])
def test_a_lora_from_a_stock_loader_that_is_rounded_into_fp8_is_noticed(name: str, probe: Probe) -> None:
    told = probe()["stock_lora"][f"{name}.safetensors"]
    assert told["effect"] < 1e-3, "merged into FP8 most of the effect is lost"
    assert told["beside"] > 0 and told["written_out"] == 0


def test_an_adapter_that_is_no_plain_lora_and_is_left_out_or_rounded_is_noticed(probe: Probe) -> None:
    told = probe()["stock_lora"]["lokr.safetensors"]
    assert told["effect"] < 1e-3
    assert told["beside"] == 0 and told["written_out"] > 0


def test_two_loras_that_do_not_add_up_are_noticed(probe: Probe) -> None:
    assert probe()["two_loras"] < SAME


def test_a_lora_of_our_node_that_differs_from_the_stock_nodes_is_noticed(probe: Probe) -> None:
    assert all(figure < 1e-6 for figure in probe()["own_lora"].values())
    assert probe()["own_lora_on_a_stock_model"] < 1e-6


def test_a_lora_that_stays_on_or_changes_the_files_bytes_is_noticed(probe: Probe) -> None:
    told = probe()["lora_taken_off_again"]
    assert told["during"] > 1e-3
    assert told["same"] is True and told["bytes"] is True


def test_a_partly_loaded_model_that_computes_something_else_is_noticed(probe: Probe) -> None:
    assert all(figure < SAME for figure in probe()["low_memory"].values())


def test_a_lora_that_cannot_be_exact_is_refused_with_what_to_do(probe: Probe) -> None:
    assert "Create Hook LoRA" in probe()["scheduled_lora"]


def test_a_weight_that_is_read_out_as_raw_fp8_is_noticed(probe: Probe) -> None:
    told = probe()["weight_read_out"]
    assert len(told) == 15 and max(told.values()) < SAME, told


def test_an_extracted_lora_that_is_not_the_difference_of_the_models_numbers_is_noticed(probe: Probe) -> None:
    told = probe()["extracted"]
    assert len(told) == 12
    assert all(one["same names"] for one in told.values())
    # ComfyUI writes 16 bits.
    assert max(one["apart"] for one in told.values()) < 1e-3, told


@pytest.mark.parametrize(
    "way",
    [
        *("one", "get", "items", "dict", "unpacked", "copy", "pop", "popitem", "setdefault"),
        *("or", "or of another", "or in place", "copied", "copied in depth", "pickled", "ordered", "filed"),
        *("patcher's", "prefix's", "module's", "named module's", "network's"),
    ],
)
def test_a_weight_read_out_of_the_model_that_is_its_bytes_and_not_its_numbers_is_noticed(
    way: str, probe: Probe
) -> None:
    assert probe()["weights_read_out"][way] < SAME


def test_a_table_of_weights_that_forgets_what_is_written_into_it_is_noticed(probe: Probe) -> None:
    told = probe()["tables_of_weights"]
    assert told["written"] == [True] * 3 and told["other's"] is True and told["beside"] is True


def test_a_table_of_numbers_with_scales_that_would_be_applied_twice_is_noticed(probe: Probe) -> None:
    assert probe()["tables_of_weights"]["scales"] == []


def test_a_model_that_comfyui_measures_by_its_numbers_and_not_by_its_bytes_is_noticed(probe: Probe) -> None:
    told = probe()["tables_of_weights"]
    assert [round(size, 2) for size in told["size"]] == [1, 1, 1] and told["parts"] == 1


@pytest.mark.parametrize(
    "layout",
    ["legacy", "legacy_full_precision", "per_row", "plain_everything", "scaled_e5m2", "diffusers_scaled", "bfloat16"],
)
def test_a_saved_model_that_reads_as_another_is_noticed(layout: str, probe: Probe) -> None:
    told = probe()["saved_and_read_again"][layout]
    assert told["bytes"] is True and told["ours"] == 0
    assert told["stock"] < SAME
    assert told["full precision"] == layout.endswith("full_precision")


def test_a_partly_loaded_model_that_is_saved_wrong_is_noticed(probe: Probe) -> None:
    assert probe()["saved_from_low_memory"] == 0


def test_a_lora_or_a_merge_that_is_saved_without_its_effect_is_noticed(probe: Probe) -> None:
    answer = probe()["saved_changed"]
    assert len(answer["told"]) == 6
    assert all("Save the model without" in (text or "saved") for text in answer["told"].values()), answer["told"]
    assert answer["files"] == []


@pytest.mark.parametrize(("merge", "near"), [("simple", 1e-3), ("subtract", 1e-3), ("add", 5e-3)])
def test_a_merge_of_two_models_that_is_not_that_of_their_numbers_is_noticed(
    merge: str, near: float, probe: Probe
) -> None:
    told = probe()["merged"][merge]
    assert told["effect"] > 1e-2
    assert told["low memory"] < SAME
    # ComfyUI writes merged biases and norms in the file's own bfloat16.
    assert max(told["apart"], told["step"]) < near
    assert told["taken off again"] is True


def test_a_dropped_model_that_stays_in_memory_is_noticed(probe: Probe) -> None:
    assert probe()["dropped_while_loaded"] == {"plain": [], "lora": []}


def test_lora_that_takes_the_gpus_memory_for_layers_that_are_not_there_is_noticed(probe: Probe) -> None:
    assert probe()["branches_stay_beside_their_weights"] == {"held": ["cpu"], "moved": ["meta"]}


def test_fp8_bytes_that_a_cast_of_the_whole_model_changes_are_noticed(probe: Probe) -> None:
    assert probe()["cast_whole"]["bytes"] is True


def test_modulation_that_is_computed_again_in_every_step_is_noticed(probe: Probe) -> None:
    told = probe()["foreseen_steps"]
    assert told["rows a layer"] == [4], "all steps of a run at once"
    assert told["layers"] == 7, "each modulation layer once"
    assert told["again"] == 0, "nothing for another seed"
    assert told["another prompt"][0] == 7


def test_foreseen_modulation_that_changes_the_picture_is_noticed(probe: Probe) -> None:
    told = probe()["foreseen_steps"]
    assert max(told["apart"], told["guided"], told["another prompt"][1], told["unannounced levels"]) < SAME


def test_foreseen_modulation_that_is_rounded_otherwise_in_16_bits_is_noticed(probe: Probe) -> None:
    told = probe()["foreseen_in_16_bits"]
    assert told["rounded"] > 1e-4, "the steps were taken in 16 bits"
    assert told["apart"] == 0


def test_a_replaced_block_that_gets_foreseen_modulation_is_noticed(probe: Probe) -> None:
    rows, calls, figure = probe()["foreseen_steps"]["aside"]
    assert rows == [1] and calls == 7 * 4
    assert figure < SAME


def test_rows_of_the_last_block_that_nobody_reads_and_are_computed_are_noticed(probe: Probe) -> None:
    told = probe()["last_block"]
    text, picture = 7, 4 * 6
    for found, references in zip(told["plain"], (0, 4 * 6, 4 * 6 + 6 * 3), strict=True):
        rows = text + picture + references
        wide = TINY.hidden
        query_key_value, rest = ["linear1", rows, 3 * wide], ["linear1", picture, 4 * wide]
        assert found["seen"] == [query_key_value, rest, ["linear2", picture, wide]]
        every = [["linear1", rows, 7 * wide], ["linear2", rows, wide]]
        assert found["every"] == every, "left alone where a patch looks on"
        assert found["apart"] < SAME
    assert told["lora"] < SAME


def test_modulation_that_takes_room_from_what_is_read_in_every_step_is_noticed(probe: Probe) -> None:
    told = probe()["last_in_dynamic_vram"]
    assert told["first"] == 0 and len(told["last"]) == 2 * TINY.doubles + TINY.singles + 1
    assert all("mod" in name for name in told["last"])
    if not told["asked"]:
        pytest.skip("this ComfyUI's memory manager does not ask")


def test_a_model_that_comfyui_cannot_build_once_more_is_noticed(probe: Probe) -> None:
    assert probe()["built_again_for_another_gpu"] is True


def test_our_sampler_that_strays_from_comfyuis_on_the_same_schedule_is_noticed(probe: Probe) -> None:
    assert probe()["own_sampler"] < SAME


def test_a_picture_of_a_batch_that_cannot_be_made_again_alone_is_noticed(probe: Probe) -> None:
    assert probe()["own_sampler_alone_and_in_a_batch"] < SAME


@pytest.mark.parametrize("options", [(), ("--supports-fp8-compute",)], ids=["stored", "multiplied"])
def test_a_picture_that_depends_on_its_batch_is_noticed(options: tuple[str, ...], probe: Probe) -> None:
    # In FP8 anything but equality ends as another picture: every layer makes much of what is different.
    assert probe(*options)["guided_alone_and_in_a_batch"] < SAME


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("cfg", "Connect one, or set cfg to 1"),
        ("channels", "Encode the picture with FLUX's own VAE"),
        ("batch", "Reference 1 has 3 pictures for a batch of 1"),
        ("nan", "NaN or infinity"),
    ],
)
def test_a_sampling_that_cannot_be_right_is_refused_with_the_reason(case: str, words: str, probe: Probe) -> None:
    assert words in probe()["own_sampler_refusals"][case]


def test_running_out_of_memory_without_saying_what_is_missing_is_noticed(probe: Probe) -> None:
    text = probe()["out_of_memory"]
    assert "1024x1024" in text and "0.3 GB are free" in text and "--lowvram" in text


def test_free_memory_that_counts_the_failed_step_as_taken_is_noticed(probe: Probe) -> None:
    alive = probe()["free_memory_after_a_failed_step"]
    assert alive and not any(alive)


def test_a_spelling_that_comfyui_reads_and_we_read_otherwise_is_noticed(
    probe: Probe, tables: dict[str, list[str]]
) -> None:
    told = probe()["spelled_loras"]
    figures = [figure for one in told.values() for figure in one]
    read = [figure for figure in figures if figure is not None]
    tables["Spellings of a LoRA's keys"] = [
        f"{len(told)} spellings, {len(figures)} layers' names in all. ComfyUI's Load LoRA reads {len(read)}, of which "
        f"{sum(figure < 1e-6 for figure in read)} are the same here."
    ]
    assert len(read) > 2000
    assert max(read) < 1e-6, {title: one for title, one in told.items() if any(f and f > 1e-6 for f in one)}


@pytest.mark.parametrize("names", ["one trainer", "two trainers"])
def test_a_layer_under_two_names_that_counts_twice_is_noticed(names: str, probe: Probe) -> None:
    assert probe()["loras_named_twice"][names] < 1e-6


# ComfyUI adds to biases and norms in the file's own bfloat16.
_ROUNDED = {"bias": 5e-3, "norms": 6e-2, "norms set": 3e-2}


@pytest.mark.parametrize("node", ["own", "stock"])
def test_another_kind_of_adapter_that_is_not_what_comfyui_makes_of_it_is_noticed(node: str, probe: Probe) -> None:
    told = probe()["other_kinds"]
    assert len(told) == 15
    for kind, by_strength in told.items():
        for strength, figures in by_strength.items():
            assert figures["size"] > 1e-4, (kind, strength)
            assert figures[node] < _ROUNDED.get(kind, 5e-3), (kind, strength)
