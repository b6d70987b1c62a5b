"""The words that the demo is taught, and its sentences as their numbers. Reader and encoder are the pack's own.

Articles and marks are left out, so that 16 places hold nearly all sentences taught. New words are put at the end: a
word's number is its row in the table.
"""

from __future__ import annotations

from ..kontext.demo.encoder import WordEncoder
from ..kontext.demo.sentences import Vocabulary

PLACES = 16
WIDTH = 128
ROWS = 320

_TAUGHT = """
<pad> <unknown> add air also and are as at autumn away balloon be birds black blue boat bright cabin change cloud
colour cottage cover day daytime delete disappear draw dusk else erase evening everything fall fir firs first get
give golden gone green have hot house in insert into is it jetty keep leave leaves let make midnight moon night
nighttime no noon nothing of on orange out paint picture pier place please purple put recolour red remove rest rid
roof sailboat sailing sails scene season set sheep should show snow snowy some summer sun sunset take then there
they time to trees turn unchanged well white winter with without yellow
"""
_NOT_YET = """
second another two bigger larger smaller big small grow shrink move left right middle side up down higher lower swap
exchange colours from reference other third its shape water light weather sky stormy storm clear cloudy rain rainy
grey brown pink dark flowers door windows window flag path hills mountains lake grass bird tree sail clouds between
both same like copy bring sunny morning afternoon spring cold warm hut wall walls hull dock animal lamb balloons
boats houses behind front next color recolor want i you can could would does not do that this one only just now but
still stay alone untouched colourful composition shift more their round way
lights lanterns
"""
WORDS = (*_TAUGHT.split(), *_NOT_YET.split())
VOCABULARY = Vocabulary(WORDS, PLACES)


def numbers(sentence: str) -> list[int]:
    """A sentence as PLACES word numbers; what is longer is cut."""
    return VOCABULARY.numbers(sentence)


def new_encoder() -> WordEncoder:
    """The text encoder, untrained."""
    return WordEncoder(ROWS, PLACES, WIDTH)
