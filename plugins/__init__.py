"""The public plugin API: what a package of handlers imports, and nothing else."""

from .context import NodeContext
from .errors import PermanentError, RetryAfter
from .handler import Handler, handler
from .hooks import ENTRY_POINT_GROUP, hookimpl

__all__ = [
    "ENTRY_POINT_GROUP",
    "Handler",
    "NodeContext",
    "PermanentError",
    "RetryAfter",
    "handler",
    "hookimpl",
]
