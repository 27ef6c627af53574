"""Calls the hooks of plugins: each plugin by itself, so that what one of them raises is nobody else's trouble."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, get_args

from ..observability.rare_log import RareLog
from ..plugins.discovery import Plugin
from ..plugins.errors import RetryAfter
from ..plugins.secrets import SECRET_NAME, find_secret, variable_of
from ..plugins.values import (
    ApiCaller,
    ApiRequest,
    Attempt,
    AttemptOutcome,
    CallerScope,
    EngineProcess,
    FinishedExecution,
)
from .core.machine import Execution, Outcome
from .core.queue import Delivery
from .errors import SetupError

log = logging.getLogger(__name__)

START_SECONDS = 60.0
STOP_SECONDS = 10.0
"""How long a plugin may take to get ready, and to clean up."""


class HookCalls:
    """One hook, of the plugins that implement it, in their order."""

    def __init__(self, plugins: Sequence[Plugin], hook: str) -> None:
        self._hook = hook
        self._rare_log = RareLog(log)
        self.plugins = [plugin for plugin in plugins if hook in plugin.hooks]

    def notify(self, **arguments: Any) -> None:
        """Call each; what one raises is logged."""
        for plugin in self.plugins:
            try:
                getattr(plugin.caller, self._hook)(**arguments)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # nothing is awaited here: whatever is raised is the plugin's own
                self.complain(plugin, error)

    async def first_answer(self, **arguments: Any) -> tuple[Any, list[str]]:
        """The first that is not None, and the names of the plugins before it that raised something."""
        failed = []
        for plugin in self.plugins:
            try:
                answer = await self.call(plugin, **arguments)
            except (Exception, SystemExit) as error:
                self.complain(plugin, error)
                failed.append(plugin.name)
                continue
            if answer is not None:
                return answer, failed
        return None, failed

    async def call(self, plugin: Plugin, **arguments: Any) -> Any:
        """What one of them returns; waited for if it has to be."""
        answers = getattr(plugin.caller, self._hook)(**arguments)
        answer = answers[0] if answers else None
        return await answer if inspect.isawaitable(answer) else answer

    def complain(self, plugin: Plugin, error: BaseException) -> None:
        """Log what a plugin has raised, and where."""
        self._rare_log.write(logging.ERROR, plugin.name, f"{self._hook} of plugin {plugin.name} {_said(error)}")


def _said(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f" ({trace.tb_frame.f_code.co_filename}, line {trace.tb_lineno})" if trace is not None else ""
    return f"raised {type(error).__name__}: {error}{where}"


class Lifetimes:
    """The plugins that want to know when the engine starts and stops in this process."""

    def __init__(self, plugins: Sequence[Plugin], process: EngineProcess) -> None:
        self._process = process
        self._start = HookCalls(plugins, "workflow_engine_start")
        self._stop = HookCalls(plugins, "workflow_engine_stop")
        self._plugins = [plugin for plugin in plugins if plugin in self._start.plugins or plugin in self._stop.plugins]
        self._started: list[Plugin] = []

    async def start(self) -> None:
        """Start each. Raises `SetupError` for one that cannot."""
        for plugin in self._plugins:
            try:
                if plugin in self._start.plugins:
                    async with asyncio.timeout(START_SECONDS):
                        await self._start.call(plugin, process=self._process)
            except TimeoutError as error:
                raise SetupError(f"plugin {plugin.name} did not start within {START_SECONDS:g} s") from error
            except (Exception, SystemExit) as error:
                raise SetupError(
                    f"plugin {plugin.name} cannot start: its workflow_engine_start {_said(error)}; mend its cause, "
                    "or uninstall the plugin"
                ) from error
            self._started.append(plugin)

    async def stop(self) -> None:
        """Stop those that were started, the last one first."""
        while self._started:
            plugin = self._started.pop()
            if plugin not in self._stop.plugins:
                continue
            try:
                async with asyncio.timeout(STOP_SECONDS):
                    await self._stop.call(plugin, process=self._process)
            except (Exception, SystemExit) as error:
                self._stop.complain(plugin, error)


class AttemptWatch:
    """Tells plugins of attempts."""

    def __init__(self, plugins: Sequence[Plugin]) -> None:
        self._started = HookCalls(plugins, "workflow_engine_attempt_started")
        self._ended = HookCalls(plugins, "workflow_engine_attempt_ended")

    @property
    def is_wanted(self) -> bool:
        """Whether any plugin wants to be told."""
        return bool(self._started.plugins or self._ended.plugins)

    def started(self, delivery: Delivery) -> None:
        """An attempt starts."""
        if self._started.plugins:
            self._started.notify(attempt=_attempt(delivery))

    def ended(self, delivery: Delivery, outcome: Outcome) -> None:
        """An attempt has ended."""
        if self._ended.plugins:
            error = outcome.error
            told = AttemptOutcome(
                seconds=(outcome.finished_at - outcome.started_at) / 1000,
                output_bytes=None if outcome.output is None else len(outcome.output),
                error_type=None if error is None else error.type,
                error_message=None if error is None else error.message,
            )
            self._ended.notify(attempt=_attempt(delivery), outcome=told)


def _attempt(delivery: Delivery) -> Attempt:
    execution, node, number = delivery
    graph = execution.graph
    return Attempt(
        execution_id=execution.execution_id,
        workflow=graph.name,
        node_id=graph.node_ids[node],
        handler=graph.handlers[node],
        number=number,
    )


def watch_attempts(plugins: Sequence[Plugin]) -> AttemptWatch | None:
    """What tells plugins of attempts; None when none of them wants to know."""
    watch = AttemptWatch(plugins)
    return watch if watch.is_wanted else None


def watch_executions(plugins: Sequence[Plugin]) -> Callable[[Execution], None] | None:
    """What tells plugins of an execution that has ended; None when none of them wants to know."""
    finished = HookCalls(plugins, "workflow_engine_execution_finished")

    def tell(execution: Execution) -> None:
        told = FinishedExecution(
            execution_id=execution.execution_id, workflow=execution.graph.name, state=execution.state.value
        )
        finished.notify(execution=told)

    return tell if finished.plugins else None


class Secrets:
    """The secrets of handlers: of the plugins that know some, then of the environment, then of a folder."""

    def __init__(self, plugins: Sequence[Plugin], folder: Path | None) -> None:
        self._calls = HookCalls(plugins, "workflow_engine_secret")
        self._folder = folder

    async def resolve(self, name: str) -> str:
        """The secret of this name.

        Raises `LookupError` when nobody knows it, and `RetryAfter` when nobody answers, and somebody could not.
        """
        if not isinstance(name, str) or not SECRET_NAME.fullmatch(name):
            raise LookupError(f"{name!r} is no name of a secret: it does not match {SECRET_NAME.pattern}")
        answer, failed = await self._calls.first_answer(name=name) if self._calls.plugins else (None, [])
        if isinstance(answer, str):
            return answer
        if answer is not None:
            raise RetryAfter(
                f"the secret {name!r} cannot be had: a plugin answers with {type(answer).__name__}, not with text",
                error_type="secret_unavailable",
            )
        found = find_secret(name, self._folder)
        if found is not None:
            return found
        if failed:
            raise RetryAfter(
                f"the secret {name!r} cannot be had: {', '.join(failed)} failed; the log says why",
                error_type="secret_unavailable",
            )
        where = variable_of(name) if self._folder is None else f"{variable_of(name)} or the file {self._folder / name}"
        raise LookupError(f"there is no secret {name!r}: no plugin knows it; set {where}")


def authenticator(plugins: Sequence[Plugin]) -> Callable[[ApiRequest], Awaitable[ApiCaller | None]] | None:
    """What asks plugins who sends a request; None when none of them can tell."""
    calls = HookCalls(plugins, "workflow_engine_authenticate")

    async def authenticate(request: ApiRequest) -> ApiCaller | None:
        answer, _ = await calls.first_answer(request=request)
        if answer is None or (isinstance(answer, ApiCaller) and answer.name and answer.scope in get_args(CallerScope)):
            return answer
        log.error("workflow_engine_authenticate of a plugin returns %r: no ApiCaller with a name and a scope", answer)
        return None

    return authenticate if calls.plugins else None


class PluginHooks:
    """The hooks of this process's plugins, as its parts call them; None where no plugin wants to be called."""

    def __init__(self, plugins: Sequence[Plugin], process: EngineProcess, secrets_folder: Path | None) -> None:
        self.lifetimes = Lifetimes(plugins, process)
        self.attempts = watch_attempts(plugins)
        self.executions = watch_executions(plugins)
        self.secrets = Secrets(plugins, secrets_folder)
        self.authenticate = authenticator(plugins)
