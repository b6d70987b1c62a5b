"""What the panel *Edits* shows beside what the ledger knows: pictures before an edit, graphs, local edits, thumbnails.

Nothing here says what was paid or sent; without it the ledger is whole, and only the panel shows less. So no fault of
it ends a run.

folder.py   a file that lies in a folder and nowhere else; the album's folders
small.py    a picture made small: for the grid, and for the half of the slider that is before the edit
notes.py    by an edit's request key what it was made from, and in which graph; local edits whole
behind.py   written down behind a run, on a thread of its own; the oldest files go where there are too many
"""
