"""Fixed facts of a small mesh that answers, as `top` finds them.

Does not cover: how they look (screens.py).
"""

from __future__ import annotations

from typing import Any

GB = 10**9


def overview(called: str = "") -> dict[str, Any]:
    """Return what `top` finds: a node near its budget that everybody waits for, one lost, two that do nothing.

    Args: called: what mesh, model, a node and a request are, if not as in a home.
    """
    unknown = dict.fromkeys((
        "serves_model", "serves_rank", "world_size", "rss_bytes", "budget_bytes", "machine_bytes", "window_bytes",
        "resident_bytes", "kv_bytes", "kv_budget_bytes", "page_cache_bytes", "read_bytes_per_second", "round_seconds",
        "last_share", "rounds_over", "rounds_port",
    ))  # fmt: skip
    idle = {**unknown, "frames_failed": False, "is_up": True, "silent_seconds": 0.4}
    model = {"serves_model": called or "SmolLM2-135M-Instruct", "world_size": 3}
    kitchen = {
        "rss_bytes": 687 * 10**6, "budget_bytes": 700 * 10**6, "machine_bytes": 8 * GB, "window_bytes": 64 * 10**6,
        "resident_bytes": 420 * 10**6, "kv_bytes": 11 * 10**6, "kv_budget_bytes": 175 * 10**6, "last_share": 0.61,
        "read_bytes_per_second": 98e6, "round_seconds": 0.0241,
        "rounds_over": "grpc", "frames_failed": True, "rounds_port": 50061,
    }  # fmt: skip
    cellar = {
        "rss_bytes": 1.9 * GB, "machine_bytes": 4 * GB, "window_bytes": 0, "resident_bytes": 1.2 * GB, "kv_bytes": 0,
        "kv_budget_bytes": GB, "read_bytes_per_second": 0.0, "round_seconds": 0.0041, "last_share": 0.39,
        "rounds_over": "frames",
    }  # fmt: skip
    asked = {"model": called or "SmolLM2-135M-Instruct", "most_answer_tokens": 200}
    return {
        "mesh": called or "home", "open_model": "SmolLM2-135M-Instruct", "tokens_per_second": 12.44,
        "rounds_per_second": 744.0, "most_requests": 16,
        "coordinator": {"rss_bytes": 119 * 10**6, "machine_bytes": 4 * GB},
        "nodes": [
            {**idle, **model, **kitchen, "name": called or "kitchen", "serves_rank": 0},
            {**idle, **model, "name": "attic", "serves_rank": 1, "is_up": False, "silent_seconds": 72.0},
            {**idle, **model, **cellar, "name": "cellar", "serves_rank": 2},
            {**idle, "name": "living-room"},
            {**idle, "name": "garage", "is_up": False, "silent_seconds": None},
        ],
        "requests": [
            {**asked, "request_id": called or "ticket-4711", "state": "answering", "prompt_token_count": 31,
             "age_seconds": 14.2, "read_token_count": 31, "answer_token_count": 112, "tokens_per_second": 12.31},
            {**asked, "request_id": "9f8e7d6c5b4a3f2e", "state": "reading", "prompt_token_count": 725,
             "read_token_count": 256, "answer_token_count": 0, "tokens_per_second": 0.0, "age_seconds": 3.4},
            {**asked, "request_id": "0011223344556677", "state": "waiting", "prompt_token_count": 0,
             "read_token_count": 0, "answer_token_count": 0, "tokens_per_second": 0.0, "age_seconds": 0.02},
        ],
    }  # fmt: skip
