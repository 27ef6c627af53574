"""The public plugin API: what a package of handlers imports, and nothing else."""

from .context import NodeContext
from .errors import PermanentError, RetryAfter
from .handler import Handler, handler
from .hooks import ENTRY_POINT_GROUP, hookimpl
from .limits import RateLimit, RetryDefaults

__all__ = [
    "ENTRY_POINT_GROUP",
    "Handler",
    "NodeContext",
    "PermanentError",
    "RateLimit",
    "RetryAfter",
    "RetryDefaults",
    "handler",
    "hookimpl",
]
