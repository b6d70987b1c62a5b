"""The nodes that change or convert pictures, and pay for nothing.

prepare.py       Kontext Prepare and Kontext Restore
keep.py          Kontext Keep
conversions.py   pictures to URIs and bytes, and back
transfer.py      what the conversions do; loaded when a node first runs
"""
