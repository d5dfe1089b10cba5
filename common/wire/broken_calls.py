"""Why did a call fail, in a person's words? What gRPC says of it is made of addresses, layers and names of its own.

Covers: texts of gRPC itself; the log has them as they were. Does not cover: errors of ours, which are words already
(rpc.py tells them apart by their reason).
"""

from __future__ import annotations

import re

MEANINGS = (
    (r"connection refused|no such file", "nothing listens there"),
    (r"dns|not known|domain name|name resolution|lookup", "its name leads nowhere in this network"),
    (r"no route|unreachable|host is down", "no way leads there"),
    (r"certificate|verify|ssl_error", "the two do not trust each other"),
    (r"timed? ?out|timeout|deadline|keepalive|ping\b", "it does not answer any more"),
    (r"larger than max|message too large", "a message is larger than either side takes"),
    (r"concurrent|too many|exhausted|thread ?pool", "too many are asking at once"),
    (
        r"method not found|unknown (service|method)|not implemented|unimplemented",
        "it does not know what was asked; is it of another version?",
    ),
    (
        r"reset|closed|broken pipe|goaway|rst_stream|eof|removed|shutdown|shutting down|cancel|abort|transport|pings",
        "the connection broke",
    ),
)  # fmt: skip
OF_GRPC = re.compile(
    r"\b(?:g?rpc|channel|stub|stream|subchannel|endpoint|fd|http2?|recvmsg|sendmsg|ipv[46]:|addresses; last error|"
    r"UNAVAILABLE|UNKNOWN|CANCELLED|INTERNAL|UNIMPLEMENTED|DEADLINE_EXCEEDED|RESOURCE_EXHAUSTED|[A-Z]+_[A-Z_]+|"
    r"transport|socket|application|metadata|handler|handshaker|servicer)", re.IGNORECASE,
)  # fmt: skip
OTHER = "the connection failed"


def in_words(text: str) -> str:
    """Return what gRPC has said of a failed call in words that say what to look for; another text as it is."""
    for pattern, meaning in MEANINGS:
        if re.search(pattern, text, re.IGNORECASE):
            return meaning
    return OTHER if OF_GRPC.search(text) else text
