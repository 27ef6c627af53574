"""The Redis of the settings: whether it lets this process in, and keeps what it is given."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ....config import Settings
from ...errors import BrokerUnavailable, SetupError
from ...parts import redis_address
from .finding import Finding, error, ok, warning

if TYPE_CHECKING:
    from ...transport.redis_connections import RedisAddress, Server

PATIENCE_SECONDS = 5.0
REACH_IT = "Start Redis there, or set REDIS_HOST, REDIS_PORT, REDIS_PASSWORD, REDIS_DB, REDIS_URL or REDIS_CLUSTER."


def check_server(settings: Settings) -> Iterator[Finding]:
    """Whether it answers, which version it is, what it evicts. Only the backend distributed has one."""
    if settings.backend != "distributed":
        return
    from ...transport.redis import refusals, risks

    address = redis_address(settings)
    try:
        servers = asyncio.run(_ask(address, cluster=settings.redis_cluster))
    except (BrokerUnavailable, SetupError) as bad:
        yield error("redis", str(bad), REACH_IT)
        return
    if not servers:
        remedy = "Allow this user INFO, so that a version that is too old and a policy that evicts are noticed."
        yield warning("redis", f"Redis at {address} answers, but may not be asked what it is", remedy)
        return
    found = [error("redis", text, "Install a newer one.") for text in refusals(servers)]
    # With ENVIRONMENT=prod serve refuses it.
    risk = error if settings.environment == "prod" else warning
    found += [risk("redis", text, None) for text in risks(servers)]
    names = ", ".join(dict.fromkeys(map(str, servers)))
    yield from found or [ok("redis", f"{names} at {address}, which evicts nothing")]


async def _ask(address: RedisAddress, *, cluster: bool) -> Sequence[Server]:
    from ...transport.redis_connections import RedisConnections

    connections = RedisConnections(address, cluster=cluster, max_connections=1, timeout_seconds=PATIENCE_SECONDS)
    # What it would log is what is found.
    logging.disable(logging.CRITICAL)
    try:
        connections.open()
        return await connections.servers()
    finally:
        await connections.close()
        logging.disable(logging.NOTSET)
