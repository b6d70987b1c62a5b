"""The nodes that sample on this machine.

model.py         the schemas: load, LoRA, sample, and a whole edit
demo_model.py    the schema that loads the demo model
model_files.py   model files as ComfyUI lists them
says.py          what they say of themselves meanwhile, in one line
noted.py         what the panel *Edits* is told of edits that were made here
work.py          what they do; loaded when a node first runs
"""
