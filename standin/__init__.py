"""A loopback stand-in for Oxen.ai's inference API, for tests, benchmarks and the demo.

It answers as the service is documented to answer and misbehaves on request. It is not Kontext: its
"edit" is a tinted, labelled copy of the input picture.
"""

from .faults import Fault, Faults
from .records import Bearer, Bill, Job, Request, Status, Timing
from .server import StandIn

__all__ = ["Bearer", "Bill", "Fault", "Faults", "Job", "Request", "StandIn", "Status", "Timing"]
