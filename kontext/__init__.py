"""Local FLUX.1 Kontext in FP8. No network.

errors.py     what it raises; every text says what happened to which file, layer or step
schedule.py   the noise levels of an edit
latents.py    noise from a seed, tokens, and where each token lies
edit.py       what an edit asks for: size, steps, guidance, batch
goes_with.py  what text encoder and VAE belong to which model
checkpoint/   files into named layers with their scales; LoRA files into checked changes
fp8/          the formats, the products, and how a linear layer multiplies
fast/         approximations that save work, all off by default, for both mounts
demo/         the demo model that comes with the pack
comfyui/      a checkpoint as a MODEL of ComfyUI; imports ComfyUI
standalone/   the same edit without ComfyUI, on diffusers; imports diffusers when first needed

Two mounts, one arithmetic: comfyui/ and standalone/ both stand on checkpoint/ and fp8/, and neither on the other.
"""
