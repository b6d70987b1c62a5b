"""What an artist chooses besides the edit itself. Light, so that the nodes' schemas can be told without the client."""

from __future__ import annotations

from enum import Enum


class WaitMode(str, Enum):
    """How to learn that a job has ended."""

    EVENTS = "events and polling"
    POLLING = "polling"
    BLOCKING = "one blocking request"


class SendAs(str, Enum):
    """How a picture travels: AUTO is a data URI, with advice where the service refuses one."""

    AUTO = "auto"
    DATA_URI = "data URI"
    UPLOAD = "Oxen upload"


class Result(str, Enum):
    """Whether a picture that was paid for before answers the same request again."""

    REUSE = "reuse"
    NEW = "always new"


class IfAsleep(str, Enum):
    """What to do where a model of one's own is not awake: being awake is billed by the hour."""

    STOP = "stop and say its cost per hour"
    WAKE = "wake it: billed by the hour"


class Afterwards(str, Enum):
    """What becomes of a model that was woken for an edit."""

    SLEEP = "put it to sleep"
    LEAVE = "leave it awake: billed on"


class Tend(str, Enum):
    """What Kontext Models does with one of the account's own models."""

    LIST = "list"
    WAKE = "wake it: billed by the hour"
    SLEEP = "put it to sleep"
    BRING = "bring its LoRA to models/loras"


class IfSomeFail(str, Enum):
    """What a batch does where some of its edits fail."""

    STOP = "stop with the error"
    GO_ON = "go on with what succeeded"
