"""The bounds that every Broker keeps."""

from __future__ import annotations

LONGEST_INBOX_FOR_WAKE_UPS = 10_000
"""Entries; behind them wake-ups are dropped: the owner has more to do already, and sweeps what it misses."""
FORGET_HEARTBEATS_AFTER = 600_000
"""Milliseconds."""
