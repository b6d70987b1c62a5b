"""Eight-bit weights: what they are, and how they multiply.

formats.py    the two 8-bit floats, their scales, and rows made of them
products.py   products with an FP8 weight, as plain functions: FP8 is multiplied here
devices.py    which FP8 product a device has, found out by trying, and what to do when one fails
branches.py   LoRA beside a layer
compute.py    a linear layer: which product it takes, LoRA beside it
"""
