"""How long one request took: to its first token, and from each token to the next."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(kw_only=True)
class Timings:
    """Seconds of one request."""

    ttft_seconds: float = 0.0
    """From the request to its first token."""
    seconds_per_token: list[float] = field(default_factory=list)
    """Between one token and the next; one entry fewer than tokens."""

    @property
    def total_seconds(self) -> float:
        """From the request to its last token so far."""
        return self.ttft_seconds + sum(self.seconds_per_token)

    @property
    def tokens_per_second(self) -> float:
        """Rate after the first token; 0 with fewer than two tokens."""
        total = sum(self.seconds_per_token)
        return len(self.seconds_per_token) / total if total else 0.0
