"""Approximations that save work, all off by default: what they are, apart from where they are done.

wishes.py       which of them are asked for
first_block.py  whether a call may end after its first block
outside.py      which tokens lie outside a mask, and when they have settled
smaller.py      a reference of fewer tokens that still covers the whole picture
evaluations.py  one run: what each of its calls may leave out, and what must be put back
tally.py        what was left out, and how far the result is from the exact one
measured.py     the fast run beside the exact one
asked.py        the same as words on a command line

Pure tensor arithmetic on tokens, by the two mounts alike. A call is one evaluation of the model; some samplers make
two a step. All that is remembered is remembered for one run.
"""
