"""Local FLUX.1 Kontext in FP8: reading checkpoints, the FP8 linear, LoRA, the exact sampler.

Nothing here needs ComfyUI; diffusers and transformers are imported when a picture is edited without it.
"""
