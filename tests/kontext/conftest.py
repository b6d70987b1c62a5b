"""Every layout that Kontext files are found in, written from one set of tiny random weights."""

import json

import pytest
import torch
from kontext_bridge.kontext.checkpoint.layers import Naming, Role, layers, norms, roles_by_name
from kontext_bridge.kontext.standalone.tiny import TINY, random_weights
from safetensors.torch import save_file

# Tiny products are not worth a second thread, and waiting for one on a busy machine is most of their time.
torch.set_num_threads(1)

LAYOUTS = (
    "legacy",
    "legacy_full_precision",
    "metadata",
    "metadata_prefixed",
    "comfy_quant",
    "comfy_quant_full_precision",
    "per_row",
    "per_row_column",
    "plain",
    "plain_everything",
    "plain_e5m2",
    "scaled_e5m2",
    "diffusers_scaled",
)
WIDE_LAYOUTS = ("bfloat16", "float16", "float32", "diffusers", "diffusers_sharded")


def quantised_names(size, naming=Naming.BFL):
    return [name for name, role in roles_by_name(size, naming).items() if role is not Role.OUTER]


def quantise(weight, dtype, by_row):
    """The weight in FP8 and its scale, as the files' writers do it."""
    largest = weight.abs().amax(dim=1) if by_row else weight.abs().max()
    scale = (largest / torch.finfo(dtype).max).float()
    return (weight / (scale[:, None] if by_row else scale)).to(dtype), scale


def to_diffusers(tensors, size):
    """BFL-named tensors under diffusers' names, rows moved by hand."""
    out = {}
    for layer in layers(size):
        for kind in ("weight", "bias"):
            pieces = {}
            start = 0
            for part in layer.parts:
                pieces.setdefault(part.name, []).append(
                    (part.offset, tensors[f"{layer.bfl}.{kind}"][start : start + part.rows])
                )
                start += part.rows
            for name, rows in pieces.items():
                out[f"{name}.{kind}"] = torch.cat([row for _, row in sorted(rows, key=lambda r: r[0])])
    for norm in norms(size):
        out[f"{norm.diffusers}.weight"] = tensors[f"{norm.bfl}.scale"]
    return out


def _scaled(weights, size, *, naming=Naming.BFL, dtype=torch.float8_e4m3fn, names=("weight_scale",), by_row=False):
    out = {key: value.to(torch.bfloat16) for key, value in weights.items()}
    for name in quantised_names(size, naming):
        out[f"{name}.weight"], scale = quantise(weights[f"{name}.weight"], dtype, by_row)
        out[f"{name}.{names[0]}"] = scale
        if len(names) > 1:
            out[f"{name}.{names[1]}"] = torch.tensor(1.0)
    return out


def write_layout(layout, folder, weights, size):
    """The file or folder of this layout, named so that it says Kontext."""
    path = folder / f"kontext_{layout}.safetensors"
    e4m3, e5m2 = torch.float8_e4m3fn, torch.float8_e5m2
    metadata = None
    hint = {"format": "float8_e4m3fn"}
    if layout.startswith("legacy"):
        tensors = _scaled(weights, size, names=("scale_weight", "scale_input"))
        tensors["scaled_fp8"] = torch.zeros(2 if layout.endswith("precision") else 0, dtype=e4m3)
    elif layout.startswith("metadata"):
        tensors = _scaled(weights, size)
        prefix = "model.diffusion_model." if layout.endswith("prefixed") else ""
        tensors = {prefix + key: value for key, value in tensors.items()}
        described = {prefix + name: hint for name in quantised_names(size)}
        if prefix:
            described["text_encoders.t5xxl.transformer.shared"] = hint
        metadata = {"_quantization_metadata": json.dumps({"format_version": "1.0", "layers": described})}
        if prefix:
            tensors["vae.decoder.conv_in.bias"] = torch.zeros(3)
    elif layout.startswith("comfy_quant"):
        tensors = _scaled(weights, size, names=("weight_scale", "input_scale"))
        if layout.endswith("precision"):
            hint = {**hint, "full_precision_matrix_mult": True}
        for name in quantised_names(size):
            tensors[f"{name}.comfy_quant"] = torch.tensor(list(json.dumps(hint).encode()), dtype=torch.uint8)
    elif layout.startswith("per_row"):
        tensors = _scaled(weights, size, by_row=True)
        if layout.endswith("column"):
            tensors = {k: v[:, None] if k.endswith("weight_scale") else v for k, v in tensors.items()}
    elif layout == "plain_everything":
        tensors = {key: value.to(e4m3) for key, value in weights.items()}
    elif layout.startswith("plain"):
        dtype = e5m2 if layout.endswith("e5m2") else e4m3
        chosen = {f"{name}.weight" for name in quantised_names(size)}
        tensors = {k: v.to(dtype if k in chosen else torch.bfloat16) for k, v in weights.items()}
    elif layout == "scaled_e5m2":
        tensors = _scaled(weights, size, dtype=e5m2)
    elif layout == "diffusers_scaled":
        tensors = _scaled(to_diffusers(weights, size), size, naming=Naming.DIFFUSERS)
    elif layout == "diffusers":
        path = folder / "kontext_diffusers"
        return _write_folder(path, [to_diffusers(weights, size)])
    elif layout == "diffusers_sharded":
        renamed = list(to_diffusers(weights, size).items())
        half = len(renamed) // 2
        return _write_folder(folder / "kontext_sharded", [dict(renamed[:half]), dict(renamed[half:])])
    else:
        tensors = {key: value.to(getattr(torch, layout)) for key, value in weights.items()}
    save_file({key: value.contiguous() for key, value in tensors.items()}, path, metadata=metadata)
    return path


def _write_folder(path, shards):
    folder = path / "transformer"
    folder.mkdir(parents=True)
    (path / "model_index.json").write_text(json.dumps({"_class_name": "FluxKontextPipeline"}))
    if len(shards) == 1:
        save_file(shards[0], folder / "diffusion_pytorch_model.safetensors")
        return path
    names = [f"diffusion_pytorch_model-{i + 1:05}-of-{len(shards):05}.safetensors" for i in range(len(shards))]
    weight_map = {}
    for name, tensors in zip(names, shards, strict=True):
        save_file({key: value.contiguous() for key, value in tensors.items()}, folder / name)
        weight_map.update(dict.fromkeys(tensors, name))
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return path


@pytest.fixture(scope="session")
def size():
    return TINY


@pytest.fixture(scope="session")
def weights():
    """Tiny random weights, float32, by BFL names. Not to be written to."""
    return random_weights()


@pytest.fixture
def write(tmp_path, weights, size):
    """Writes the tiny model in a layout and gives the path; `change` may edit the tensors of a BFL file first."""

    def build(layout="legacy", change=None, name=None):
        path = write_layout(layout, tmp_path, weights, size)
        if change is not None:
            from safetensors import safe_open

            with safe_open(path, "pt") as file:
                tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
                metadata = file.metadata()
            changed = change(tensors)
            save_file(tensors if changed is None else changed, path, metadata=metadata)
        return path if name is None else path.rename(path.with_name(name))

    return build


@pytest.fixture
def save(tmp_path):
    """Writes a LoRA's tensors and gives the path."""

    def build(tensors, metadata=None, name="style"):
        path = tmp_path / f"{name}.safetensors"
        save_file({key: value.contiguous() for key, value in tensors.items()}, path, metadata=metadata)
        return path

    return build


@pytest.fixture(name="to_diffusers")
def to_diffusers_fixture():
    """Moves rows from BFL's names to diffusers', independently of the code under test."""
    return to_diffusers


def pytest_generate_tests(metafunc):
    if "fp8_layout" in metafunc.fixturenames:
        metafunc.parametrize("fp8_layout", LAYOUTS)
    if "wide_layout" in metafunc.fixturenames:
        metafunc.parametrize("wide_layout", WIDE_LAYOUTS)
    if "layout" in metafunc.fixturenames:
        metafunc.parametrize("layout", LAYOUTS + WIDE_LAYOUTS)
