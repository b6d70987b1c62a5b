"""The nodes that ask Oxen.ai.

edit.py      Kontext Edit (Oxen) and Kontext Model Info (Oxen)
edit_picture.py  Edit Picture (Oxen) and Submit Picture (Oxen): any model
own_inputs.py    what a model has below the list that it is chosen from
edit_folder.py  Kontext Edit Folder (Oxen)
known_models.py  the models that can be chosen
chosen.py    what was chosen there, checked
along.py     references and masks, which go with the pictures that are edited
queue.py     Submit, Collect, Queue, Cancel
history.py   Kontext History (Oxen)
orders.py    what the widgets ask for, checked, and the edits that it makes
keeping.py   what came laid back onto the pictures that it was made from
your_models.py   Kontext Models (Oxen)
tending.py   what it does: lists, wakes, puts to sleep, brings weights
origins.py   what the panel *Edits* is told: from which picture and graph an edit comes
waking.py    a model of one's own kept awake for them
runs.py      those edits run, and their outcomes as IMAGE and info
folder_work.py  a folder edited: the batch of the command, in ComfyUI's folders
left_out.py  what a run left out and another may bring
lists.py     a list of pictures: one run, seen item by item
anew.py      for a whole list: which edits are made anew, and whether the limits allow it
listing.py   what the service and the ledger hold, told as text
"""
