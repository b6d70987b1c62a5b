"""Runs ComfyUI's own Flux model, in ComfyUI's Python: comfy_oracle.py TREE WEIGHTS INPUTS OUTPUT

WEIGHTS holds the model under BFL's names in float32, INPUTS the arguments of one forward. Started by
test_comfyui.py; nothing of the pack is imported here.
"""

import sys

tree, weights_path, inputs_path, output_path = sys.argv[1:]
sys.argv = [sys.argv[0], "--cpu"]
sys.path.insert(0, tree)

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

import comfy.ldm.flux.model  # noqa: E402
import comfy.ops  # noqa: E402
import torch  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

weights, inputs = load_file(weights_path), load_file(inputs_path)


def depth(kind):
    return len({name.split(".")[1] for name in weights if name.startswith(f"{kind}_blocks.")})


hidden = weights["img_in.weight"].shape[0]
model = comfy.ldm.flux.model.Flux(
    image_model="flux",
    dtype=torch.float32,
    operations=comfy.ops.disable_weight_init,
    in_channels=16,
    out_channels=16,
    vec_in_dim=weights["vector_in.in_layer.weight"].shape[1],
    context_in_dim=weights["txt_in.weight"].shape[1],
    hidden_size=hidden,
    mlp_ratio=4.0,
    num_heads=hidden // 128,
    depth=depth("double"),
    depth_single_blocks=depth("single"),
    axes_dim=[16, 56, 56],
    theta=10000,
    patch_size=2,
    qkv_bias=True,
    guidance_embed=True,
    txt_ids_dims=[],
)
own = model.state_dict()
model.load_state_dict({name if name in own else name.replace(".scale", ".weight"): t for name, t in weights.items()})
references = [inputs[name] for name in sorted(inputs) if name.startswith("reference")]
with torch.no_grad():
    outputs = {
        f"{method}.{step}": model(
            inputs["latent"].clone(),
            inputs["sigmas"][step : step + 1],
            inputs["text"],
            y=inputs["pooled"],
            guidance=inputs["guidance"],
            ref_latents=[r.clone() for r in references],
            ref_latents_method=method,
            transformer_options={},
        ).contiguous()
        for method in ("offset", "index")
        for step in range(len(inputs["sigmas"]))
    }
save_file(outputs, output_path)
