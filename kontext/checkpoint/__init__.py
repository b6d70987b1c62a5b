"""From files to named layers, and to changes of them.

layers.py        the layers of FLUX.1 under both of their names
files.py         safetensors files as memory-mapped tensors
identify.py      which model a file holds
purpose.py       which pictures a model was made for
reading.py       a Kontext file as layers with their scales, whatever its layout
bfl.py           the same under Black Forest Labs' names
lora_names.py    the layers that a LoRA file changes, by any spelling
lora_keys.py     what each tensor of a LoRA file is
lora_kinds.py    the kinds of adapter, told by their tensors
lora_config.py   PEFT's and diffusers' settings in a file's header
lora_once.py     a layer that a file says twice, counted once
lora_reader.py   a LoRA file as checked changes of a model's layers
lora_file.py     a LoRA file just downloaded: whether it is one
lora.py          a LoRA file that fits a model
"""
