"""Failpoints: named places at every I/O boundary where a test can make this process fail.

`FAILPOINTS="name@n:action, ..."`: at the n-th passing (1 when left out) of `name` (`*` is any) do
`kill` (SIGKILL to this process), `stop` (SIGSTOP), `raise`, or `delay(milliseconds)`. Without it a
failpoint costs one look at a global.
"""

from __future__ import annotations

import os
import re
import signal
import threading
from collections import Counter
from dataclasses import dataclass

_ITEM = re.compile(r"(?P<name>[a-z_.*]+)(?:@(?P<count>\d+))?:(?P<action>kill|stop|raise|delay\((?P<delay>\d+)\))")


class FailpointRaised(Exception):
    """Raised by a failpoint that was told to raise."""


@dataclass(frozen=True, slots=True)
class _Rule:
    name: str
    count: int
    action: str
    delay_milliseconds: int


class _Failpoints:
    def __init__(self, rules: list[_Rule]) -> None:
        self.rules = rules
        self.passed: Counter[str] = Counter()
        self.lock = threading.Lock()

    def hit(self, name: str) -> None:
        with self.lock:
            self.passed[name] += 1
            self.passed["*"] += 1
            due = [rule for rule in self.rules if rule.name in (name, "*") and self.passed[rule.name] == rule.count]
        for rule in due:
            _act(rule, name)


_active: _Failpoints | None = None


def configure(text: str) -> None:
    """Switch failpoints on as `text` says, or all off when it is empty. Raises `ValueError` naming the item."""
    global _active  # noqa: PLW0603  one switch for the process: failpoints stand in code without any context
    rules = [_parse(item) for item in filter(None, (part.strip() for part in text.split(",")))]
    _active = _Failpoints(rules) if rules else None


def failpoint(name: str) -> None:
    """A place where this process can be made to fail."""
    if _active is not None:
        _active.hit(name)


def _parse(item: str) -> _Rule:
    found = _ITEM.fullmatch(item)
    if found is None:
        raise ValueError(f"FAILPOINTS: {item!r} is not of the form name@n:kill|stop|raise|delay(milliseconds)")
    action = found["action"].partition("(")[0]
    return _Rule(found["name"], int(found["count"] or 1), action, int(found["delay"] or 0))


def _act(rule: _Rule, name: str) -> None:
    if rule.action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif rule.action == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif rule.action == "raise":
        raise FailpointRaised(f"failpoint {name}")
    else:
        threading.Event().wait(rule.delay_milliseconds / 1000)
