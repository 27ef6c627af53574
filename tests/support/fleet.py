"""A fleet: real processes that share the work of one database and one Redis, and what a test asks of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NamedTuple

from aiohttp import ClientSession, TCPConnector
from api_client import submit, trigger

API, WORKER, ALL = "api,orchestrator", "worker", "all"
DEADLINE_SECONDS = 60.0
AT_ONCE = 32
LOOK_SECONDS = 0.02

QUICK = {
    "ORCHESTRATOR_STALE_RESULT_TIMEOUT": "2",
    "WORKER_HEARTBEAT_INTERVAL": "0.5",
    "WORKER_HEARTBEAT_TIMEOUT": "1.5",
    "WORKER_STALE_CLAIM_INTERVAL": "0.5",
    "WORKER_CONCURRENCY": "50",
}
"""The times after which somebody counts as dead, as short as is sensible; and slots for everything at once."""
LEASE_SECONDS = float(QUICK["ORCHESTRATOR_STALE_RESULT_TIMEOUT"])
HEARTBEAT_TIMEOUT_SECONDS = float(QUICK["WORKER_HEARTBEAT_TIMEOUT"])


class Start(NamedTuple):
    """That a handler has begun, and in which process."""

    execution_id: str
    node_id: str
    attempt: int
    process: int
    nanoseconds: int
    """When, since the epoch."""


class Fleet:
    """Starts processes, and keeps a session with each that has an API."""

    def __init__(self, start_server: Callable[..., Any], variables: Mapping[str, str], log: Path) -> None:
        self.variables = variables
        """Those that all processes share."""
        self.servers: list[Any] = []
        self._start_server = start_server
        self._log = log
        self._sessions = AsyncExitStack()
        self._clients: dict[str, ClientSession] = {}

    async def start(self, *roles: str, **variables: str) -> list[Any]:
        """Start a process for each of the roles, all at the same time."""
        common = {**self.variables, "CHAOS_HANDLER_LOG": str(self._log), **variables}
        started = await asyncio.gather(
            *(asyncio.to_thread(self._start_server, RUNTIME_ROLES=each, **common) for each in roles)
        )
        for server in started:
            if server.url is not None:
                self._clients[server.url] = await self._sessions.enter_async_context(
                    ClientSession(server.url, connector=TCPConnector(limit=AT_ONCE))
                )
        self.servers += started
        return started

    async def stop(self) -> list[int]:
        """SIGTERM to all that live, at the same time; returns their exit codes."""
        alive = [server for server in self.servers if server.is_alive]
        return list(await asyncio.gather(*(asyncio.to_thread(server.stop) for server in alive)))

    async def close(self) -> None:
        """End the sessions."""
        await self._sessions.aclose()

    @property
    def clients(self) -> list[ClientSession]:
        """A session with each API that lives."""
        return [self.client(server) for server in self.servers if server.url is not None and server.is_alive]

    def client(self, server: Any) -> ClientSession:
        """The session with a process's API."""
        return self._clients[server.url]

    def starts(self) -> list[Start]:
        """Every start of a handler so far, in order."""
        return read_starts(self._log)

    async def until(self, seen: Callable[[], Any], seconds: float = DEADLINE_SECONDS) -> Any:
        """Wait for something, which may be asked of an API, and return it."""
        async with asyncio.timeout(seconds):
            while True:
                found = seen()
                found = await found if asyncio.iscoroutine(found) else found
                if found:
                    return found
                await asyncio.sleep(LOOK_SECONDS)

    async def until_shared(self, orchestrators: int, partitions: int = 16) -> None:
        """Wait until so many orchestrators own all partitions, each its share."""
        least = partitions // orchestrators

        async def shared() -> bool:
            owned = Counter((await owners(self.clients[0])).values())
            return None not in owned and len(owned) == orchestrators and min(owned.values()) >= least

        await self.until(shared)


def read_starts(log: Path) -> list[Start]:
    """What the handlers have written of their starts."""
    lines = log.read_text().splitlines() if log.exists() else []
    return [
        Start(execution, node, int(attempt), int(process), int(nanoseconds))
        for execution, node, attempt, process, nanoseconds in map(str.split, lines)
    ]


async def get(client: ClientSession, path: str, **query: Any) -> Any:
    """What an API answers."""
    async with client.get(path, params=query) as response:
        assert response.status == 200, await response.text()
        return await response.json()


async def owners(client: ClientSession) -> dict[int, str | None]:
    """Who owns each partition, by number. One whose lease has run out has no owner."""
    items = (await get(client, "/v1/partitions"))["items"]
    return {item["partition"]: item["owner"] if (item["expires_in_seconds"] or 0) > 0 else None for item in items}


async def start_all(clients: list[ClientSession], documents: Iterable[tuple[Any, dict[str, Any]]]) -> list[str]:
    """Start an execution of each (definition, parameters), at one API after the other; returns their ids in order."""
    at_once = asyncio.Semaphore(AT_ONCE)

    async def start(number: int, document: Any, parameters: dict[str, Any]) -> str:
        client = clients[number % len(clients)]
        async with at_once:
            return await trigger(client, await submit(client, document), input_params=parameters)

    return list(await asyncio.gather(*(start(number, *each) for number, each in enumerate(documents))))


async def results_of_all(clients: list[ClientSession], ids: Iterable[str]) -> list[Any]:
    """What each execution came to, in order: each asked for at the API after the one that started it."""
    return list(
        await asyncio.gather(
            *(
                get(clients[(number + 1) % len(clients)], f"/v1/workflows/{each}/results", wait="60")
                for number, each in enumerate(ids)
            )
        )
    )
