"""The edit's drift of colour and tone, learnt where nothing was edited and taken back everywhere.

Source minus edit is fitted channel by channel: a bias and a gain that change slowly over the picture, a tone curve, and
how the channels leak into each other. What kinds of drift a picture has, and how much of each, its own pixels say (each
group of terms has a variance, found by expectation maximisation); pixels that do not follow are left out step by step.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from .filters import centres
from .mapping import legendre, places

_BIAS, _GAIN = 5, 3  # the degrees of the slow changes
# From where a pixel is no drift: wide at first. Channels leak only in the second half, once recoloured things are out.
_CUTS = (0.3, 0.15, 0.1, 0.1, 0.06, 0.05)
_TIGHT = (0.3, 0.12, 0.07, 0.05, 0.04)
_AGAIN = (0.12, 0.06, 0.04)  # from a first fit on
_ALIKE = 9  # pixels that are about one measurement: neighbours err alike
_DOUBT = 0.9  # how much less counts what was cut off
_LEAST = 200  # pixels without which nothing can be said
_GREY = 0.01  # channels that differ by less than that are one
_DARK = 0.02  # keeps the logarithm of black finite
_ROWS = 128
_HEADROOM = 1.3, 0.01  # a correction may be that much larger than any that was seen


@dataclass(frozen=True, eq=False)
class Drift:
    """What to add to the edit's colour. weights [3,terms] fp32, limit: the largest correction allowed; variance
    [3,groups] fp64: how much of each kind there is."""

    weights: Tensor
    limit: float
    variance: Tensor = field(default_factory=lambda: _likely())

    def corrected(self, edited: Tensor, down: Tensor, across: Tensor, strength: float = 1.0) -> Tensor:
        """[3,h,w] of an edit's colours 0..1 that lie at these shares of the source; not clamped to 0..1."""
        columns = legendre(2 * across - 1, _BIAS)
        found = torch.empty_like(edited)
        # Few rows at a time stay in a processor's cache.
        for start in range(0, len(down), _ROWS):
            part = slice(start, start + _ROWS)
            added = self._added(edited[:, part], legendre(2 * down[part] - 1, _BIAS), columns)
            torch.add(edited[:, part], added.clamp_(-self.limit, self.limit), alpha=strength, out=found[:, part])
        return found

    def _added(self, edited: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        planes = torch.cat([edited, torch.stack(_products(edited))])
        linear = torch.cat([self.weights[:, 1:4], self.weights[:, 7:_COLOURS]], 1)
        added = (linear @ planes.reshape(6, -1)).reshape(edited.shape)
        start = _COLOURS + len(_SLOW_BIAS)
        for c, (weights, plane) in enumerate(zip(self.weights, added, strict=True)):
            own, (bend, square, cube) = edited[c], weights[4:7].tolist()
            plane += _slow(weights[_COLOURS:start], _SLOW_BIAS, rows, columns).add_(weights[0])
            # What is multiplied with the channel itself: slow gain and tone curve.
            factor = _slow(weights[start:], _SLOW_GAIN, rows, columns)
            factor.add_((own * cube).add_(square).mul_(own)).add_((own + _DARK).log_(), alpha=bend)
            plane.addcmul_(factor, own)
        return added


_SLOW_BIAS, _SLOW_GAIN = places(_BIAS)[1:], places(_GAIN)[1:]
_COLOURS = 1 + 3 + 3 + 3  # terms of the colour alone: constant, channels, tone curve, products
# Which variance each term shares, beside the constant's: channels that leak, the channel's own curve, products, each
# order of bias and of gain.
_LEAKS, _OWN, _PRODUCTS = 1, 2, 3
_FIXED = [0, _LEAKS, _PRODUCTS]
_SLOW = [3 + i + j for i, j in _SLOW_BIAS] + [3 + _BIAS + i + j for i, j in _SLOW_GAIN]
_GROUPS = torch.tensor([[0, *[_LEAKS] * 3, *[_OWN] * 3, *[_PRODUCTS] * 3, *_SLOW]] * 3)
_GROUPS[range(3), range(1, 4)] = _OWN
_START = [1e2, 0.02, 0.1, 0.01, *(0.02 * 0.6**n for n in range(_BIAS)), *(0.05 * 0.6**n for n in range(_GAIN))]


def _likely() -> Tensor:
    """[3,groups]: the variances before anything is known."""
    return torch.tensor(_START).double().square().repeat(3, 1)


def fit_drift(
    source: Tensor,
    edited: Tensor,
    weight: Tensor,
    known: bool = False,
    first: Drift | None = None,
    white: Tensor | None = None,
) -> Drift | None:
    """The drift between two small pictures [3,h,w], pixel on pixel; None where too few pixels count.

    weight [1,h,w]: how sure it is that nothing was edited, 0..1. known: what was edited has no weight already. first:
    what was found before that was known. white [3,h,w]: how much of each was cut off at white, 1, or at
    black, -1.
    """
    height, width = source.shape[1:]
    sure = weight.reshape(-1) > 0.05
    if int(sure.sum()) < _LEAST:
        return None
    rows, columns = (legendre(2 * centres(n).double() - 1, _BIAS) for n in (height, width))
    slow = torch.stack([rows[i][:, None] * columns[j] for i, j in _SLOW_BIAS]).reshape(len(_SLOW_BIAS), -1)[:, sure]
    given, weight = source.reshape(3, -1)[:, sure].double(), weight.reshape(-1)[sure].double()
    wanted = given - edited.reshape(3, -1)[:, sure]
    cut_off = torch.zeros_like(wanted) if white is None else white.reshape(3, -1)[:, sure].double()
    start = first or Drift(torch.zeros(_GROUPS.shape), 0.0)
    weights, variance = start.weights.double(), start.variance.clone()
    # A grey picture says nothing of how channels leak, and would learn it from noise.
    colourful = float((given - given.mean(0)).square().mean()) > _GREY**2
    trusted, added = weight, torch.zeros_like(wanted)
    if first is not None:
        added = _sums(weights, [_terms(given - wanted, c, slow) for c in range(3)])
    for turn, cut in enumerate(_CUTS if not known else _TIGHT if first is None else _AGAIN):
        leaks = colourful and (known or turn >= len(_CUTS) // 2)
        # The edit's colours without its noise. With it, taking back the noise would be learnt, too: where a picture's
        # colours hardly differ, as among leaves, that is most of what there is to learn.
        seen = (given - added).clamp_(0, 1)
        terms = [_terms(seen, c, slow) for c in range(3)]
        left = wanted - _sums(weights, terms)
        trusted = weight * (1 - (left.square().sum(0) / cut**2)).clamp(min=0).square()
        # Where the edit is white, what was brighter tells nothing, and the rest may be what was edited; so in the dark.
        told = trusted * (1 - torch.where(cut_off * left > 0, 1, _DOUBT) * cut_off.abs())
        for c in range(3):
            weights[c], variance[c] = _solved(terms[c], left[c], weights[c], told[c], variance[c], _GROUPS[c], leaks)
        added = _sums(weights, terms)
    added = added.abs()[:, trusted > 0.2]
    largest = float(added.amax(0).quantile(0.995)) if added.shape[1] else 0.1
    return Drift(weights.float(), largest * _HEADROOM[0] + _HEADROOM[1], variance)


def _sums(weights: Tensor, terms: list[Tensor]) -> Tensor:
    """[3,N]"""
    return torch.stack([one @ some for one, some in zip(weights, terms, strict=True)])


def _terms(colour: Tensor, c: int, slow: Tensor) -> Tensor:
    """[terms,N] for channel c of colours [3,N]; slow [bias terms,N]."""
    own = colour[c]
    gain = slow[: len(_SLOW_GAIN)] * own
    return torch.cat([torch.ones_like(own)[None], colour, torch.stack([*_tone(own), *_products(colour)]), slow, gain])


def _tone(own: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What a change of gamma adds, to first order, and two bends more."""
    square = own * own
    return own * (own + _DARK).log(), square, square * own


def _products(colour: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    red, green, blue = colour
    return red * green, red * blue, green * blue


def _slow(weights: Tensor, where: list[tuple[int, int]], rows: Tensor, columns: Tensor) -> Tensor:
    """[h,w]: the sum of weighted products of polynomials."""
    matrix = torch.zeros(len(rows), len(columns))
    for weight, (i, j) in zip(weights.tolist(), where, strict=True):
        matrix[i, j] = weight
    return rows.T @ matrix @ columns


def _solved(
    terms: Tensor, left: Tensor, weights: Tensor, trusted: Tensor, variance: Tensor, groups: Tensor, leaks: bool
) -> tuple[Tensor, Tensor]:
    """The weights that explain what is left, and the groups' variances after that."""
    scatter = (trusted * left.square()).sum() / (trusted.sum() + 1e-6)
    noise = float(scatter.clamp(min=1e-6)) * _ALIKE
    weighed = terms * trusted
    information = weighed @ terms.T / noise
    stiff = 1 / variance[groups]
    if not leaks:
        stiff[(groups == _LEAKS) | (groups == _PRODUCTS)] = 1e8
    pull = weighed @ left / noise
    covariance = torch.linalg.inv(information + torch.diag(stiff))
    step = covariance @ (pull - stiff * weights)
    found = weights + step
    power = found.square() + covariance.diagonal()
    learnt = (torch.bincount(groups, power) / torch.bincount(groups)).clamp(min=1e-8)
    # How far channels leak is learnt badly from few colours: that stays as likely as it was, and so does the constant.
    learnt[_FIXED] = variance[_FIXED]
    return found, learnt
