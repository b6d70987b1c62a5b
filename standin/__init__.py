"""A loopback stand-in for Oxen.ai's inference API, for tests, benchmarks and the demo.

It answers as the service is documented to answer and misbehaves on request. It is not Kontext: its
"edit" is a tinted, labelled copy of the input picture, or what the demo model makes of it, labelled as well.

faults.py        the ways in which it can misbehave, one switch each
records.py       what it remembers: requests, jobs, bills
schemas.py       the picture models, from the pack's files of them
parameters.py    the picture models as the service documents them, and what is wrong with a request
sizes.py         how large a result is asked to be
masks.py         what of a picture a mask marks
picture.py       its edit
painter.py       its edit by the demo model
sent.py          fetching pictures and masks
samples.py       the pictures that the service's own examples edit
own_models.py    the account's own models: asleep, awake, billed by the hour
storage.py       repositories and the files in them
signing.py       presigned addresses
events.py        the event streams
strangers.py     jobs that somebody else made with the same key
service.py       the account behind it
replies.py       error envelopes, and replies gone wrong
call.py          one request on its way through
gate.py          what every request passes first
bombs.py         answers made to fill a client's memory
mischief.py      the faults that take a reply's place or spoil it
echo.py          rows that tell of a job otherwise than it was sent
rows.py          how a job looks from outside
generating.py    the paid routes
history.py       what was made, and what it cost
models.py        the list of models
fine_tuning.py   waking, sleeping and deploying the account's own models
repos.py         identity, repositories, files
outcomes.py      downloads of finished pictures
switchboard.py   looking at it and setting it from another process
app.py           which address answers what
server.py        all of it as one object, in a thread of its own
__main__.py      the command
"""

from .faults import Fault, Faults
from .records import Bearer, Bill, Job, Request, Status, Timing
from .server import StandIn

__all__ = ["Bearer", "Bill", "Fault", "Faults", "Job", "Request", "StandIn", "Status", "Timing"]
