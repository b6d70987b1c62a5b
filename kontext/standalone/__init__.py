"""A whole edit without ComfyUI, on diffusers.

optional.py   diffusers and transformers, imported when first needed
memory.py     how much memory is left, asked before it runs out
before_ampere.py GPUs without arithmetic in bfloat16
mount.py      a checkpoint in diffusers' transformer
lora.py       LoRA files as branches beside its layers
text.py       the prompt, encoded
vae.py        pictures to latents and back
blocks.py     FLUX.1's two kinds of block
denoiser.py   the transformer, with all that does not change computed before the first step
sampler.py    from noise to a picture
fast_sampler.py the same with approximations, and what there is to say of it
workshop.py   a model loaded once for many edits
tiny.py       a model small enough for a test
"""
