"""Bytes to the service and back: bounded in number and in time, ended by Cancel.

line.py          one request on its way: what bounds it, and who may end it
connections.py   sockets whose bytes pass a line
address.py       which addresses a URL from a workflow may reach
way.py           proxies and certificates, as the environment tells them
codings.py       Content-Encoding, unpacked in bounded pieces
body.py          bodies on their way out and in
large.py         texts of megabytes in JSON: a reply's are set apart before it is read
writing.py       the JSON of a request, whose pictures are not looked through
structure.py     JSON that is made to exhaust memory, refused before it is parsed
envelope.py      the service's own error inside a reply
statuses.py      what an HTTP status stands for, and whether the service or a gateway says it
plain.py         why a request failed, in plain words
sse.py           server-sent events from bytes
transport.py     requests to the service: one pool, and a paid request sent once
fetch.py         downloads: results, and URLs that a workflow names
"""
