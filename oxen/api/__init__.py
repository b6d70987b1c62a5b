"""The service's routes, each as one call; jobs/ keeps what is promised across failures.

prices.py    what a picture costs
models/      the models, each as data: fields, defaults, bounds
request.py   one edit as plain, checked data
replies.py   what the service says, read into values
client.py    the routes as methods
own_models.py  an account's own models: awake or asleep, what they cost, deploying them
whose.py     whose key it is, asked once
events.py    the event stream, read in the background
uploads.py   a picture put where the service can fetch it
"""
