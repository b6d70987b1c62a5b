"""What edit.py, keep.py, headless/ and standin/ share as commands.

console.py   text on a console, whatever it can print
named.py     files that a command line names, looked at before any work
written.py   files that a command writes: whole or not at all
"""
