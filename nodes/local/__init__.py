"""The nodes that sample on this machine.

model.py         the schemas: load, LoRA, sample, and a whole edit
demo_model.py    the schema that loads the demo model
fast_node.py     the schema of the approximations
model_files.py   model files as ComfyUI lists them
says.py          what they say of themselves meanwhile, in one line
noted.py         what the panel *Edits* is told of edits that were made here
inside.py        what needs ComfyUI, and a word where there is none
fast_work.py     what the approximations do; loaded when the node first runs
work.py          what they do; loaded when a node first runs
"""
