"""What the commands of this pack share; the commands are edit, keep, headless and standin.

console.py   text on a console, whatever it can print
named.py     files that a command line names, looked at before any work
"""
