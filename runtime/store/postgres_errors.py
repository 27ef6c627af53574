"""What PostgreSQL's errors mean for a write: has not happened, may have happened, or is at fault itself."""

from __future__ import annotations

import asyncpg

from ..errors import BackendError, StoreOutcomeUnknown, StoreUnavailable, StoreUnusable

# The server's own word that the statement was rolled back, for reasons that pass.
_HAS_NOT_HAPPENED = (
    asyncpg.InsufficientResourcesError,
    asyncpg.TransactionRollbackError,
    asyncpg.QueryCanceledError,
    asyncpg.CannotConnectNowError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.LockNotAvailableError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.PostgresSystemError,
)

# The connection ended under way: whatever was asked for may have been done.
_CONNECTION_LOST = (
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)

CANNOT_CONNECT = (*_CONNECTION_LOST, *_HAS_NOT_HAPPENED, asyncpg.PostgresError)
"""Whatever comes of asking for a connection."""


def is_broken(error: BaseException) -> bool:
    """Whether the connection is of no more use."""
    return isinstance(error, _CONNECTION_LOST) and not isinstance(error, ValueError)


def retry_at_once(error: BaseException) -> bool:
    """Whether the same statement will probably succeed: it met another one."""
    return isinstance(error, asyncpg.SerializationError | asyncpg.DeadlockDetectedError)


def translate(error: Exception, *, writing: bool) -> Exception:
    """The error in the port's words; data that contradicts or cannot be stored stays what it is."""
    if isinstance(error, ValueError):  # asyncpg's own word for a value of the wrong kind, an InterfaceError too
        return error
    if isinstance(error, _HAS_NOT_HAPPENED):
        return StoreUnavailable(f"PostgreSQL refuses: {error}")
    if isinstance(error, _CONNECTION_LOST):
        return lost(error) if writing else StoreUnavailable(f"the connection to PostgreSQL was lost: {describe(error)}")
    return error


def lost(error: Exception) -> BackendError:
    """A connection that ended before it said what came of a write."""
    return StoreOutcomeUnknown(f"the connection to PostgreSQL was lost during a write: {describe(error)}")


def may_pass(error: Exception) -> bool:
    """Whether asking for a connection again may succeed without anybody changing the settings."""
    return is_broken(error) or isinstance(error, _HAS_NOT_HAPPENED)


def unusable(address: object, error: Exception) -> StoreUnusable:
    """A database that does not let this process in, with the settings to look at."""
    # What is unavailable has said where.
    said = (
        str(error) if isinstance(error, StoreUnavailable) else f"no use of PostgreSQL at {address}: {describe(error)}"
    )
    return StoreUnusable(
        f"{said}; check POSTGRES_URL, or POSTGRES_HOST, POSTGRES_PORT, POSTGRES_USER, POSTGRES_PASSWORD and "
        "POSTGRES_DATABASE"
    )


def describe(error: Exception) -> str:
    """The error in a line: some have no text of their own, and what the driver says of itself means nothing."""
    if isinstance(error, asyncpg.InternalClientError):
        return "it broke"
    return str(error) or type(error).__name__
