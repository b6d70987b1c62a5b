"""What a remote and a local edit share: the words of an edit, its ranges and defaults. Imports nothing of the pack.

values.py   values from outside, read: texts, numbers, switches, choices
fields.py   a field of a request: its names, kind, default, bounds, tooltip
short.py    a text's first sentence
words.py    the fields that every edit has, and the shapes of its result
"""
