"""Encoded families on the device that trains, and batches of lessons from them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from ..kontext.latents import pack
from .album import DOUBLES, SINGLES, Sheet, Subject
from .kept_files import metadata_of, put_tensors, tensors_of

Encode = Callable[[torch.Tensor], torch.Tensor]
_CHANGED = 0.25
_MADE_OF = "made_of"


@dataclass(frozen=True, eq=False)
class LessonBatch:
    """Tokens [B, L, 64] of targets and [B, R, 64] of references; words [B, PLACES], guidance [B], weight [B, L, 1].

    The weight has a mean of about 1.
    """

    references: torch.Tensor
    target: torch.Tensor
    words: torch.Tensor
    guidance: torch.Tensor
    weight: torch.Tensor


class Pool:
    """Latents [N, P, 16, h, w] of all pictures of N families of one subject, in 16 bits, and their lessons."""

    def __init__(self, subject: Subject, tensors: dict[str, torch.Tensor]) -> None:
        self.subject = subject
        self._tensors = tensors

    @classmethod
    def made(cls, subject: Subject, drawn: Iterable[Sheet], encode: Encode, device: torch.device | str) -> Pool:
        """From drawn families. encode: pictures [B, 3, H, W] of -1..1 to latents, on the device."""
        parts: dict[str, list[torch.Tensor]] = {"latents": [], "source": [], "target": [], "words": []}
        for sheet in drawn:
            families, pictures = sheet.pictures.shape[:2]
            latents = encode(ready(torch.from_numpy(sheet.pictures).flatten(0, 1).to(device)))
            parts["latents"].append(latents.half().reshape(families, pictures, *latents.shape[1:]))
            for name in ("source", "target", "words"):
                parts[name].append(torch.from_numpy(getattr(sheet, name)).to(device))
        return cls(subject, {name: torch.cat(some) for name, some in parts.items()})

    @classmethod
    def loaded(cls, subject: Subject, folder: Path, device: torch.device, made_of: str = "") -> Pool | None:
        """What `save` kept, if anything; of what was made of something else, nothing."""
        path = folder / _name(subject)
        if metadata_of(path).get(_MADE_OF) != made_of:
            return None
        return cls(subject, tensors_of(path, "Delete it: it is made anew.", device))

    def save(self, folder: Path, made_of: str = "") -> None:
        """Keeps all of it, so that the next run need not draw and encode it.

        made_of: what it depends on beside the subject, for whoever asks for it again.
        """
        put_tensors(self._tensors, folder / _name(self.subject), {_MADE_OF: made_of})

    def __len__(self) -> int:
        return len(self._tensors["latents"])

    def batch(self, count: int, doubles: float, unheard: float = 0.06) -> LessonBatch:
        """Random lessons, `doubles` of them with two edits. unheard: the share whose guidance is near 0.

        Those are to leave the picture as it is. So guidance means something: a sampler that hands it over wrongly is
        found out by its pictures. All is drawn by torch where the latents lie.
        """
        latents, words = self._tensors["latents"], self._tensors["words"]
        device = latents.device
        at = torch.randint(len(self), (count,), device=device)
        one = torch.randint(SINGLES, (count,), device=device)
        two = torch.randint(SINGLES, SINGLES + DOUBLES, (count,), device=device)
        lesson = torch.where(torch.rand(count, device=device) < doubles, two, one)
        source = latents[at, self._tensors["source"][at, lesson].long()].float()
        target = latents[at, self._tensors["target"][at, lesson].long()].float()
        deaf = torch.rand(count, device=device) < unheard
        heard = 1 + 3 * torch.rand(count, device=device)
        little = 0.2 * torch.rand(count, device=device)
        tokens, wanted = pack(source), pack(torch.where(deaf[:, None, None, None], source, target))
        references = torch.cat([tokens, pack(latents[at, -1].float())], 1) if self.subject.borrows else tokens
        return LessonBatch(
            references, wanted, words[at, lesson].long(), torch.where(deaf, little, heard), _weight(tokens, wanted)
        )


def ready(pictures: torch.Tensor) -> torch.Tensor:
    """Pictures [B, H, W, 3] of bytes as [B, 3, H, W] of -1..1."""
    return pictures.permute(0, 3, 1, 2).float() / 127.5 - 1


def _name(subject: Subject) -> str:
    return f"pool_{subject.size[0]}x{subject.size[1]}_{subject.code}.safetensors"


def _weight(source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Half of the loss for the tokens that change, however few: copying the rest is the easier half to learn."""
    changed = ((source - target).abs().mean(-1, keepdim=True) > _CHANGED).float()
    share = changed.mean(1, keepdim=True).clamp(min=0.06)
    return torch.where(changed.sum(1, keepdim=True) > 0, 0.5 + 0.5 * changed / share, torch.ones_like(changed))
