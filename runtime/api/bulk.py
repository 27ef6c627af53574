"""Bulk start: JSON lines in, JSON lines out, a window of them in work at a time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from ..clock import Clock
from ..core.json_text import InvalidJson, decode
from ..core.problem import Problem
from ..definitions import off_loop
from ..engine import Engine
from ..errors import EngineError, PayloadTooLarge
from ..ports import IdempotencyClaim
from .bodies import TriggerRequest
from .errors import BadRequest, RequestTooSlow
from .idempotency import make_claim, read_key
from .lines import LineReader, TooLong
from .options import ApiOptions
from .problems import error_document
from .requests import validate
from .routing import Call
from .submit_routes import ENVELOPE_BYTES

WINDOW_LINES = 256


class BulkStart:
    """Starts an execution of one version of a definition for each line of a request's body."""

    def __init__(self, engine: Engine, clock: Clock, options: ApiOptions, call: Call, version: int) -> None:
        self._engine = engine
        self._clock = clock
        self._options = options
        self._call = call
        self._name = call.path("name")
        self._version = version
        self._key = read_key(call.request)
        self._max_line_bytes = options.max_input_bytes + ENVELOPE_BYTES

    async def answers(self) -> AsyncIterator[bytes]:
        """The answers, some lines at a time. The lines that have come by then share the store's transactions."""
        number = 0
        lines = LineReader(self._call.request.content, self._max_line_bytes)
        try:
            while True:
                async with asyncio.timeout(self._options.request_timeout_seconds):
                    window = await lines.read(WINDOW_LINES)
                if not window:
                    return
                done = await asyncio.gather(
                    *(self._answer(number + offset, line) for offset, line in enumerate(window, 1))
                )
                number += len(window)
                yield b"".join(done)
        except TimeoutError:
            error: EngineError = RequestTooSlow(
                f"the next line has not come within {self._options.request_timeout_seconds:g} seconds"
            )
        except web.RequestPayloadError:
            error = BadRequest("the body is not encoded as its Content-Encoding or Transfer-Encoding says")
        yield _text({"line": number + 1, "problem": error_document(error)})

    async def _answer(self, number: int, line: bytes | TooLong) -> bytes:
        try:
            started = await self._start(number, line)
        except EngineError as error:
            return _text({"line": number, "problem": error_document(error)})
        return b'{"line": %d, "execution_id": "%s"}\n' % (number, started.encode())

    async def _start(self, number: int, line: bytes | TooLong) -> str:
        if isinstance(line, TooLong):
            raise PayloadTooLarge(f"the line is longer than the {self._max_line_bytes} bytes allowed")
        try:
            value = await off_loop(len(line), lambda: decode(line))
        except InvalidJson as error:
            raise BadRequest("the line is not valid JSON", [Problem("$", str(error))]) from None
        parameters = validate(value, TriggerRequest).input_params
        started = await self._engine.start(
            self._name, parameters, version=self._version, claim=self._claim(number, line)
        )
        return started.execution_id

    def _claim(self, number: int, line: bytes) -> IdempotencyClaim | None:
        if self._key is None:
            return None
        whose = [self._call.principal.name, "start_bulk"]
        asked = [self._name, self._call.query.version]
        return make_claim(f"{self._key}/{number}", whose, asked, line, self._clock.now())


def _text(value: Any) -> bytes:
    return json.dumps(value).encode() + b"\n"
