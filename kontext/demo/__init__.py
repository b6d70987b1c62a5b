"""The demo model that comes with the pack: its three files lie in this folder.

sentences.py  an instruction as numbers
encoder.py    the tiny text encoder
shipped.py    the files, found and read
"""
