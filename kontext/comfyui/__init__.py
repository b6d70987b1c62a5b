"""Kontext as an ordinary MODEL of ComfyUI. These files import ComfyUI.

load.py      a checkpoint into a ModelPatcher
disk.py      the file's tensors as ComfyUI's own loader gives them, for dynamic VRAM
ops.py       the layers that ComfyUI builds its Flux from
patches.py   ComfyUI's weight patches as branches beside the layers
mixing.py    methods of this pack in place of ComfyUI's own, for a ModelPatcher and its clones
lora.py      a LoRA file put on a MODEL
numbers.py   the numbers that FP8 bytes stand for, for merging and other nodes that read weights
saving.py    what leaves the MODEL when ComfyUI saves it
attention.py the kernel of attention that torch chooses by itself, where it is clearly faster than in ComfyUI's order
steps.py     what is computed once an edit instead of once a step
uncompiled.py ComfyUI's own compiler kept away from steps that differ
fast_model.py the approximations of fast/ on a MODEL
carried.py   what a MODEL knows of its file: which pictures it edits best
belonging.py a prompt or a VAE of another model refused
sampler.py   an edit by ComfyUI's own sampler
companions.py the demo model's text encoder and VAE as ComfyUI's CLIP and VAE
"""
