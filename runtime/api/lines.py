"""A body's lines as they come in, none of them longer in memory than is allowed."""

from __future__ import annotations

from typing import Protocol


class TooLong:
    """Stands for a line that is longer than is allowed; its bytes are gone."""


class Bytes(Protocol):
    """Where the bytes come from: a request's content."""

    async def readany(self) -> bytes:
        """What has come, waiting until something has; nothing at the end."""


class LineReader:
    """Splits a stream at its line feeds. The last line may lack one."""

    def __init__(self, source: Bytes, max_line_bytes: int) -> None:
        self._source = source
        self._max_line_bytes = max_line_bytes
        self._waiting: list[bytes | TooLong] = []
        self._rest = bytearray()
        self._too_long = False
        self._ended = False

    async def read(self, limit: int) -> list[bytes | TooLong]:
        """The lines that have come, at least one and at most `limit`; none at the end."""
        while not self._waiting and not self._ended:
            chunk = await self._source.readany()
            self._take(chunk)
            if not chunk:
                self._ended = True
                if self._rest or self._too_long:
                    self._end_line()
        taken = self._waiting[:limit]
        del self._waiting[:limit]
        return taken

    def _take(self, chunk: bytes) -> None:
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            self._grow(chunk[start:end])
            self._end_line()
            start = end + 1
        self._grow(chunk[start:])

    def _grow(self, piece: bytes) -> None:
        if self._too_long or len(self._rest) + len(piece) > self._max_line_bytes:
            self._too_long = True
            self._rest.clear()
        else:
            self._rest += piece

    def _end_line(self) -> None:
        self._waiting.append(TooLong() if self._too_long else bytes(self._rest))
        self._rest.clear()
        self._too_long = False
