"""What a handler is given beside its configuration: which attempt it is, what came before, and what it may use."""

from __future__ import annotations

import json
import logging
import math
import threading
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from aiohttp import ClientSession
    from opentelemetry.trace import Tracer

MAX_PROGRESS_CHARACTERS = 200


class Cancellation:
    """Whether an attempt is to stop. As a `threading.Event` that only the engine sets."""

    __slots__ = ("_event", "_is_set")

    def __init__(self) -> None:
        self._is_set = False
        self._event: threading.Event | None = None

    def is_set(self) -> bool:
        """Whether the attempt is to stop: its time is up, its execution has ended, or the engine stops."""
        return self._is_set

    __bool__ = is_set

    def wait(self, timeout_seconds: float | None = None) -> bool:
        """Wait until it is to stop, at most that long; returns whether it is. For plain functions only."""
        if self._event is None:
            self._event = threading.Event()
        # After the event was made: `set` looks for it after it has noted itself.
        return self._is_set or self._event.wait(timeout_seconds)

    def set(self) -> None:
        """Tell the attempt to stop. For the engine, and for tests of handlers."""
        self._is_set = True
        if self._event is not None:
            self._event.set()


class Services(NamedTuple):
    """What the contexts of a process share. For the engine, and for tests of handlers.

    `secret` raises `LookupError` for one that nobody knows; `wait_for_secret` is the same for other threads than the
    event loop's.
    """

    http: Callable[[], ClientSession]
    secret: Callable[[str], Awaitable[str]]
    wait_for_secret: Callable[[str], str]
    monotonic: Callable[[], float]


class NodeContext:
    """One attempt's surroundings. Made for each attempt; the values it hands out are the handler's own.

    `idempotency_key` is the same for every delivery of an attempt, and different for the next attempt.
    """

    __slots__ = (
        "_deadline",
        "_dependency_outputs",
        "_input_text",
        "_services",
        "attempt",
        "cancelled",
        "execution_id",
        "handler",
        "last_progress",
        "node_id",
        "on_progress",
        "timeout_seconds",
    )

    def __init__(
        self,
        *,
        execution_id: str,
        node_id: str,
        handler: str,
        attempt: int,
        timeout_seconds: float,
        deadline: float = math.inf,
        input_text: bytes,
        dependency_outputs: Callable[[], Sequence[tuple[str, bytes]]],
        services: Services,
    ) -> None:
        """`deadline`: when the time is up, by `services.monotonic`."""
        self.execution_id = execution_id
        self.node_id = node_id
        self.handler = handler
        self.attempt = attempt
        self.timeout_seconds = timeout_seconds
        self.cancelled = Cancellation()
        self.last_progress: float | str | None = None
        self.on_progress: Callable[[float | str], None] | None = None
        self._deadline = deadline
        self._input_text = input_text
        self._dependency_outputs = dependency_outputs
        self._services = services

    @property
    def idempotency_key(self) -> str:
        """`execution/node/attempt`: send it along with anything that must not happen twice."""
        return f"{self.execution_id}/{self.node_id}/{self.attempt}"

    @property
    def parameters(self) -> dict[str, Any]:
        """The workflow's input parameters, parsed anew at each call."""
        parsed: dict[str, Any] = json.loads(self._input_text)
        return parsed

    @property
    def inputs(self) -> Mapping[str, Any]:
        """`{dependency id: its output}` in the order of `dependencies`, parsed anew at each call."""
        return {node_id: json.loads(output) for node_id, output in self._dependency_outputs()}

    @property
    def seconds_left(self) -> float:
        """How long the attempt may still take; 0 when its time is up."""
        return max(0.0, self._deadline - self._services.monotonic())

    @property
    def http(self) -> ClientSession:
        """The shared HTTP session; it refuses addresses that the operator has not allowed. For `async def` handlers."""
        return self._services.http()

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger whose lines say which execution, node and attempt they are of."""
        ids = {"execution_id": self.execution_id, "node_id": self.node_id, "attempt": self.attempt}
        return _Logger(logging.getLogger(f"workflow_engine.handlers.{self.handler}"), ids)

    @property
    def tracer(self) -> Tracer:
        """An OpenTelemetry tracer for spans of your own."""
        # Imported here: most handlers have no use for it.
        from opentelemetry import trace

        return trace.get_tracer(f"workflow_engine.handlers.{self.handler}")

    async def secret(self, name: str) -> str:
        """The secret of this name, asked for anew at each call. Raises `LookupError` when nobody knows it."""
        return await self._services.secret(name)

    def wait_for_secret(self, name: str) -> str:
        """The same for plain functions, which cannot await it."""
        return self._services.wait_for_secret(name)

    def progress(self, done: float | str) -> None:
        """Say how far the attempt is: a share from 0 to 1, or a few words, of which 200 characters are kept.

        The process that runs the attempt shows the last one with its node; it is stored nowhere. Raises `TypeError`
        and `ValueError`.
        """
        if isinstance(done, str):
            done = done[:MAX_PROGRESS_CHARACTERS].encode(errors="replace").decode()
        elif not isinstance(done, (int, float)) or isinstance(done, bool):
            raise TypeError(f"progress takes a share from 0 to 1 or a text, not {done!r}")
        elif not 0 <= done <= 1:
            raise ValueError(f"progress takes a share from 0 to 1, not {done!r}")
        self.last_progress = done
        if self.on_progress is not None:
            self.on_progress(done)


class _Logger(logging.LoggerAdapter[logging.Logger]):
    """Adds the attempt's ids to the fields that a line is given."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        kwargs["extra"] = {**(kwargs.get("extra") or {}), **(self.extra or {})}
        return msg, kwargs
