"""The PostgreSQL server of the settings: whether it lets this process in."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ....config import Settings
from ...parts import postgres_address
from .finding import Finding, error, ok

if TYPE_CHECKING:
    from ...store.postgres_connections import PostgresAddress

PATIENCE_SECONDS = 5.0


def check_server(settings: Settings) -> Iterator[Finding]:
    """Whether it takes a connection, and which version it is. With the embedded backend nothing is checked."""
    if settings.backend == "embedded":
        return
    from ...store.postgres_errors import CANNOT_CONNECT, describe

    address = postgres_address(settings)
    try:
        version = asyncio.run(_version(address))
    except CANNOT_CONNECT as bad:
        remedy = "Start PostgreSQL there, or set POSTGRES_HOST, POSTGRES_PORT, POSTGRES_USER, POSTGRES_PASSWORD, "
        remedy += "POSTGRES_DATABASE or POSTGRES_URL."
        yield error("database", f"no connection to PostgreSQL at {address}: {describe(bad)}", remedy)
    else:
        yield ok("database", f"PostgreSQL {version} at {address}")


async def _version(address: PostgresAddress) -> str:
    from ...store.postgres_connections import Connections

    connections = Connections(address, size=1, timeout_seconds=PATIENCE_SECONDS, settings={})
    connection = await connections.connect_apart()
    version = connection.get_server_version()
    await connection.close()
    return f"{version.major}.{version.minor}"
