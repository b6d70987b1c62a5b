"""The Oxen.ai client. No torch, no ComfyUI, no picture is decoded here.

errors.py        what can go wrong, as one tree; every error says what it cost and what to do
control.py       deadlines, and stopping a run from outside
credentials.py   where the key comes from, and the one host that it goes to
key_file.py      the pack's own file for it
private_files.py files for their owner alone, written whole or not at all
loopback.py      host names that mean this machine
secrets.py       what is kept out of everything that is shown or written
settings.py      what the person who runs the machine decides
settings_file.py changing that in the file
choices.py       what an artist chooses besides the edit itself
version.py       which version this is; pyproject.toml says it
http/            bytes over the network: bounded in number and time, ended by Cancel, a paid request sent once
api/             the service's routes, requests and replies, one call each
jobs/            the promises across failures: written down before it is sent, looked up in doubt, paid once

Imports run downwards: jobs, api, http, then the files beside them. Import a name from the file it is made in:
so that reading a schema loads no client.
"""
