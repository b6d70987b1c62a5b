"""A folder or a list of pictures, edited row by row: `python -m kontext_bridge.batch SOURCE --output DIR`.

Rows flow from the source through a plan on the disk to a few workers; nothing is held in a list. The report says what
was done, the ledger what was paid: from these two a run that was stopped, however hard, goes on.

source_rows.py   a row of the source, and what is wrong with a source
columns.py       which columns a list may have, and how their values are read
walking.py       a folder as a stream of rows
manifest.py      a CSV or JSONL file as a stream of rows
naming.py        what a result is called, and where it may not lie
likeness.py      what tells a file from another under the same name
plan_tables.py   the tables of a plan, on the disk
asking.py        what source and command line together ask for, row by row
former_runs.py   what former runs reported, taken into the plan
planning.py      every row looked at before anything is sent: what is done, what is left
collisions.py    results that would be written over something
made.py          what became of a row
journal.py       report.jsonl: a line a row, whole whenever the run is killed
placing.py       a result put in its place, after its line in the report
row_pool.py      rows side by side, stopped all at once
pictures.py      a row's picture read, and what came of it looked at
row_price.py     what a row costs
row_maker.py     what makes rows, whichever way it does
owed.py          what is left of the limit in dollars
remote_rows.py   rows at Oxen.ai
local_rows.py    rows on this machine
workflow_rows.py rows through a workflow
ray_cluster.py   into a Ray cluster and out of it
paymaster.py     the one process of a Ray run that pays
ray_remote.py    rows at Oxen.ai, their pictures worked on all over a cluster
ray_local.py     rows by the models of a cluster
makers.py        who makes the rows, by the command line
flags.py         rows marked by their measures
meter.py         rate, time left, dollars
thumbnails.py    a picture's file made small
page.py          report.html
contact_sheet.py the same as one picture, for a node
running.py       a batch carried out in its folder, by the command or by a node
arguments.py     the command line
__main__.py      the command
"""
