"""Where processes run: each place starts its process again whenever it has ended, behind a network of its own."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

from fleet import WORKER
from tcp_proxy import TcpProxy

LOOK_SECONDS = 0.02
AGAIN_SECONDS = 0.5
LONG_SECONDS = 60.0


class Place:
    """Keeps one process running, as a supervisor would. Redis, PostgreSQL and its API are reached through proxies."""

    def __init__(
        self,
        name: str,
        start_server: Callable[..., Any],
        variables: Mapping[str, str],
        *,
        ports: Mapping[str, int],
        seed: int,
    ) -> None:
        """`ports`: of the servers, by the prefix of the variables that name them."""
        self.name = name
        self.links = {each: TcpProxy(port, seed=seed) for each, port in ports.items()}
        if variables["RUNTIME_ROLES"] != WORKER:
            self.links["API"] = TcpProxy(1, seed=seed)
        self.starts = 0
        self.failed_starts = 0
        self.ends: Counter[int] = Counter()
        """How often its processes have ended with each code."""
        self.server: Any = None
        self._ended: list[Any] = []
        self._start_server = start_server
        self._variables = variables
        self._running = asyncio.Event()
        self._leaving = False
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        for link in self.links.values():
            await self._stack.enter_async_context(link)
        self._task = asyncio.create_task(self._keep())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leaving = True
        if self.server is not None:
            self.server.process.kill()
        for link in self.links.values():
            link.heal()
        await asyncio.wait([self._task])
        await self._stack.aclose()

    @property
    def url(self) -> str:
        """Of its API, whatever process serves it."""
        return f"http://127.0.0.1:{self.links['API'].port}"

    @property
    def log(self) -> list[str]:
        """Every line that its processes have logged."""
        servers = [*self._ended, *filter(None, [self.server])]
        return [line for server in servers for line in server.log.splitlines()]

    async def running(self) -> Any:
        """The process that runs here, as soon as one does."""
        async with asyncio.timeout(LONG_SECONDS):
            await self._running.wait()
        return self.server

    async def leave(self) -> int:
        """SIGTERM, and nothing starts any more; returns the exit code."""
        server = await self.running()
        self._leaving = True
        server.terminate()
        await until_ended(server)
        code: int = server.process.returncode
        return code

    async def _keep(self) -> None:
        links = {f"{prefix}_PORT": str(link.port) for prefix, link in self.links.items() if prefix != "API"}
        variables = {**self._variables, **links}
        while not self._leaving:
            try:
                self.server = await asyncio.to_thread(self._start_server, **variables)
            except AssertionError:
                self.failed_starts += 1
                await asyncio.sleep(AGAIN_SECONDS)
                continue
            self.starts += 1
            if self.server.url is not None:
                self.links["API"].lead_to(int(self.server.url.rpartition(":")[2]))
            self._running.set()
            while self.server.is_alive:
                await asyncio.sleep(LOOK_SECONDS)
            self._running.clear()
            self._ended.append(self.server)
            self.ends[self.server.process.returncode] += 1


async def until_ended(server: Any) -> None:
    """Wait for the end of a process."""
    async with asyncio.timeout(LONG_SECONDS):
        while server.is_alive:
            await asyncio.sleep(LOOK_SECONDS)
