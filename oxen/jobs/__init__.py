"""Edits that are paid once and never lost.

record.py     what is remembered of one request, and by what it is known again
store.py      the pictures' files: private, whole, under names that are never used again
locks.py      one lock per key across threads and processes
tables.py     the ledger's tables, and sums that are kept as they change
ledger.py     the record of everything that was paid for; a paid request is written down here before it is sent
session.py    the client, ledger and downloads of one account
lookup.py     finding a job whose answer was lost: found, perhaps, nothing
doubt.py      what to do where lookup.py cannot tell
given_up.py   what is gone or cannot be seen, and the way out that the artist is told
spend.py      spend limits, checked before anything is sent
awake.py      a model of one's own woken, once, and put to sleep; it costs by the hour
first_deploy.py  a fine-tune deployed for the first time, once
weights.py    a fine-tune's weights as a file, whole or not at all
slots.py      the cap on edits under way at once, over the whole process
unread.py     what came and is no picture that can be read here, kept
waiting.py    waiting for a job: the row is the truth, an event only says when to look
results.py    a finished job's picture, however often it takes
order.py      one edit as it is asked for, and what became of it
shelf.py      what this machine holds of a record, and writing down what a full disk must not stop
sending.py    a request is sent, once, its record before it
finishing.py  from a sent job to its picture
editor.py     one edit through all of these
ends.py       what became of its edits, in one line
progress.py   how far a run is
handover.py   when a picture counts as handed over
parallel.py   side by side on daemon threads
batch.py      many edits side by side, nothing lost when some fail
afterwards.py a job after its run: cancelled by its id, told to whoever collects it
glance.py     a look at the ledger that changes nothing in it
trouble.py    a machine in trouble, in words
"""
