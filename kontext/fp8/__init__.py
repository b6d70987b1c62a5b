"""Eight-bit weights: what they are, and how they multiply.

failures.py   what an error of a device tells
quantising.py rows into FP8, with as few passes over memory as a device allows
formats.py    the two 8-bit floats, their scales, and what a layer's input becomes in them
products.py   products with an FP8 weight, as plain functions: FP8 is multiplied here
devices.py    which FP8 product a device has, found out by trying, and what to do when one fails
compilers.py  whether torch.compile works on a device
branches.py   LoRA beside a layer
compute.py    a linear layer: which product it takes, LoRA beside it
"""
