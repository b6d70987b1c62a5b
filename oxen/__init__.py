"""The Oxen.ai client: credentials, requests, errors, edits, queue, events, uploads, models, job ledger.

No torch and no ComfyUI in here; `client.Client` speaks HTTP, `edits.Edits` keeps the promises.
"""
