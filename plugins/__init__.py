"""The public plugin API: what a package of handlers imports, and nothing else."""

from ..runtime.core.plugin_api import PLUGIN_API_VERSION
from .context import NodeContext
from .errors import PermanentError, RetryAfter
from .handler import Handler, handler
from .hooks import ENTRY_POINT_GROUP, hookimpl
from .limits import RateLimit, RetryDefaults
from .values import (
    ApiCaller,
    ApiRequest,
    Attempt,
    AttemptOutcome,
    EngineProcess,
    FinishedExecution,
    PluginCall,
    PluginCommand,
    PluginRoute,
    RouteRefused,
)

__all__ = [
    "ENTRY_POINT_GROUP",
    "PLUGIN_API_VERSION",
    "ApiCaller",
    "ApiRequest",
    "Attempt",
    "AttemptOutcome",
    "EngineProcess",
    "FinishedExecution",
    "Handler",
    "NodeContext",
    "PermanentError",
    "PluginCall",
    "PluginCommand",
    "PluginRoute",
    "RateLimit",
    "RetryAfter",
    "RetryDefaults",
    "RouteRefused",
    "handler",
    "hookimpl",
]
