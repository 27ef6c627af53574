"""The hook specifications: everything that the engine asks of a plugin.

A plugin implements those that it has a use for, with the arguments that it has a use for. What nobody implements is
never called. Plugins are asked in the order of their distributions' names, the engine's own first. A hook that raises
is logged with its plugin's name, and nothing else comes of it, unless its description says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pluggy

from .handler import Handler
from .values import (
    ApiCaller,
    ApiRequest,
    Attempt,
    AttemptOutcome,
    EngineProcess,
    FinishedExecution,
    PluginCommand,
    PluginRoute,
)

ENTRY_POINT_GROUP = "workflow_engine"

VERSION_ATTRIBUTE = "workflow_engine_api"
"""Where a plugin says, as a number, which major version of the plugin API it was made for."""

hookspec = pluggy.HookspecMarker(ENTRY_POINT_GROUP)
hookimpl = pluggy.HookimplMarker(ENTRY_POINT_GROUP)


class HookSpecifications:
    """The specifications, as pluggy reads them."""

    @hookspec
    def workflow_engine_handlers(self, settings: Mapping[str, Any]) -> Iterable[Handler]:  # type: ignore[empty-body]
        """Return the handlers of this plugin. A module without this hook has those that are defined in it.

        `settings` are the runtime's effective settings by lower-case name (`demo_mode`, `llm_base_url`, ...),
        read-only. Called once in each process that loads plugins, before anything else. What it raises stops the start.

        .. versionadded:: 1.0
        """

    @hookspec
    def workflow_engine_start(self, process: EngineProcess) -> None:
        """Get ready: the engine starts in this process. Plain or `async def`; waited for, before any attempt runs.

        What it raises stops the start.

        .. versionadded:: 1.0
        """

    @hookspec
    def workflow_engine_stop(self, process: EngineProcess) -> None:
        """Clean up: the engine stops in this process, and nothing of it runs any more. Plain or `async def`.

        Waited for, ten seconds at most. Not called after a crash.

        .. versionadded:: 1.0
        """

    @hookspec
    def workflow_engine_attempt_started(self, attempt: Attempt) -> None:
        """Take note that an attempt starts, in the process of the worker. A plain function, called on the event loop.

        An attempt may start more than once, after a crash.

        .. versionadded:: 1.0
        """

    @hookspec
    def workflow_engine_attempt_ended(self, attempt: Attempt, outcome: AttemptOutcome) -> None:
        """Take note that an attempt ended, well or with an error. A plain function, called on the event loop.

        Not called for one that was cancelled or that died with its process. The outcome is not durable yet.

        .. versionadded:: 1.0
        """

    @hookspec
    def workflow_engine_execution_finished(self, execution: FinishedExecution) -> None:
        """Take note that an execution has ended. A plain function, called on the event loop once that is durable.

        Called in the process that owns the execution, at most once: not if that process dies at this moment.

        .. versionadded:: 1.0
        """

    @hookspec
    def workflow_engine_secret(self, name: str) -> str | None:
        """Return the secret of this name, or None. Plain or `async def`; the first answer counts.

        Asked each time that a handler wants it, before the environment and the files of `SECRETS_DIR`. If it raises and
        nobody else has an answer, the attempt fails and may be tried again.

        .. versionadded:: 1.0
        """

    @hookspec
    def workflow_engine_authenticate(self, request: ApiRequest) -> ApiCaller | None:
        """Return who sends a request, or None to leave it to API keys. Plain or `async def`; the first answer counts.

        Asked only where API keys are asked for (`API_KEYS_REQUIRED`), and not for what is public.

        .. versionadded:: 1.0
        """

    @hookspec
    def workflow_engine_routes(self) -> Iterable[PluginRoute]:  # type: ignore[empty-body]
        """Return routes for the API, below `/v1/plugins/{distribution}`. Called once, when the API is built.

        What it raises stops the start.

        .. versionadded:: 1.0
        """

    @hookspec
    def workflow_engine_commands(self) -> Iterable[PluginCommand]:  # type: ignore[empty-body]
        """Return commands for the command line. Called when a command is given that the engine does not have.

        .. versionadded:: 1.0
        """


HOOKS = tuple(name for name in vars(HookSpecifications) if name.startswith("workflow_engine_"))
"""The names of all of them."""

PLAIN_HOOKS = frozenset(
    {
        "workflow_engine_handlers",
        "workflow_engine_attempt_started",
        "workflow_engine_attempt_ended",
        "workflow_engine_execution_finished",
        "workflow_engine_routes",
        "workflow_engine_commands",
    }
)
"""Those that cannot be `async def`."""
