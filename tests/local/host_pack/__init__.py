"""Text encoders and a VAE for tests in a real ComfyUI: FLUX's own are gigabytes, or slow on a CPU.

The words decide the encoding's numbers, so that another prompt is another conditioning; every encoding is counted.
"""

import hashlib

import torch

encoded = []


class TextEncoders:
    """The methods of ComfyUI's CLIP that stock nodes and this pack call."""

    def tokenize(self, text, **_):
        return text

    def encode_from_tokens_scheduled(self, tokens, **_):
        encoded.append(tokens)
        seed = int.from_bytes(hashlib.sha256(tokens.encode()).digest()[:6], "big")
        generator = torch.Generator().manual_seed(seed)
        states = torch.randn(1, 11, 64, generator=generator)
        return [[states, {"pooled_output": torch.randn(1, 32, generator=generator)}]]


class Blocks:
    """The methods of ComfyUI's VAE that stock nodes and this pack call: a latent pixel is the mean of its 8x8."""

    colours = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))

    def encode(self, pixels):
        means = torch.nn.functional.avg_pool2d(pixels[..., :3].movedim(-1, 1), 8)
        return torch.einsum("bchw,cl->blhw", means * 2 - 1, self.colours)

    def decode(self, latent):
        means = torch.einsum("blhw,lc->bhwc", latent, torch.linalg.pinv(self.colours))
        return ((means + 1) / 2).clamp(0, 1).repeat_interleave(8, 1).repeat_interleave(8, 2)


class Loader:
    """A node without inputs that gives one thing."""

    FUNCTION = "load"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}


class TestVAE(Loader):
    RETURN_TYPES = ("VAE",)

    def load(self):
        return (Blocks(),)


class TestTextEncoders(Loader):
    RETURN_TYPES = ("CLIP",)

    def load(self):
        return (TextEncoders(),)


class TestEncodings:
    """Shows what was encoded since it was last asked."""

    RETURN_TYPES = ()
    FUNCTION = "show"
    CATEGORY = "tests"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"after": ("IMAGE",)}}

    @classmethod
    def IS_CHANGED(cls, **_):
        return float("nan")

    def show(self, after):
        texts = list(encoded)
        encoded.clear()
        return {"ui": {"encoded": texts}}


NODE_CLASS_MAPPINGS = {"TestTextEncoders": TestTextEncoders, "TestVAE": TestVAE, "TestEncodings": TestEncodings}
