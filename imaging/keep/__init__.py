"""Keeping what an edit was not asked to change: one pair by engine.keep, a batch by pairs.keep_batch.

engine.py       the edit laid back onto its source, step by step
scope.py        what of a picture may have changed
bench.py        the two pictures at one size, small enough to be quick
filters.py      the few filters that everything is made of
mapping.py      where every point of the source lies in the edit
search.py       a first guess of the mapping
refine.py       refined to a tenth of a pixel
align.py        search, then refine
colour.py       the edit's drift of colour, learnt and taken back
components.py   connected parts of a mask
change.py       which pixels were edited
look.py         all of it in one look
outline.py      how a shape goes on beyond the last line in which it is seen
carry.py        a change gone on to the picture's border
verdict.py      whether there is a picture to keep
blend.py        the edited parts laid into the source
measures.py     how far two pictures are apart
report.py       what was found and done, in numbers and a line
pairs.py        pair by pair, or one source for many edits
switch.py       for edit nodes and commands: pair by pair, and where a pair fails, the edit as it came
"""
