"""What a connection may do."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What a connection may do.

    Attributes:
        message_bytes: of one message.
        concurrent_calls: at a time; of handlers whose callers have left there may be as many more.
        preface_s: how long it may take to say what it is.
        ping_every_s: after so much silence, or up to twice that, it is asked whether it is alive, and
        ping_timeout_s: given so long to say so.
        ping_interval_s: how often it may ask the same of us while nothing is sent.
        age_s: it is asked to go after so long; 0: never.
        grace_s: and then has so long to finish its calls.
    """

    message_bytes: int
    concurrent_calls: int
    preface_s: float = 20.0
    ping_every_s: float = 60.0
    ping_timeout_s: float = 20.0
    ping_interval_s: float = 10.0
    age_s: float = 0.0
    grace_s: float = 30.0
