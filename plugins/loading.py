"""From an entry point, or an object, to a plugin: imported, checked, asked for its handlers. Everything or nothing."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any, Literal

import pluggy

from ..runtime.core.plugin_api import PLUGIN_API_VERSION
from .handler import Handler
from .hooks import ENTRY_POINT_GROUP, HOOKS, PLAIN_HOOKS, VERSION_ATTRIBUTE, HookSpecifications
from .schemas import CONFIG_MODE, OUTPUT_MODE, SchemaFault, schema_text
from .sources import OWN_DISTRIBUTION, Origin, Source

HANDLERS_HOOK = "workflow_engine_handlers"
SKIP = "or set PLUGINS_ON_ERROR=skip to go on without it"

GIVEN = Origin()
"""Of a plugin that is given as an object."""

State = Literal["loaded", "refused", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """A plugin that was found. `name` is what messages call it; `reason` says why it is not loaded.

    `refused`: it may not be loaded, or was made for another engine. `failed`: it is broken.
    """

    name: str
    origin: Origin = GIVEN
    entry_point: str | None = None
    state: State = "loaded"
    reason: str | None = None
    error: BaseException | None = None
    handlers: Sequence[Handler] = ()
    hooks: Sequence[str] = ()
    caller: Any = field(default=None, repr=False)
    """Has a method for each hook, which calls this plugin alone."""

    def out(self, state: State, reason: str, error: BaseException | None = None) -> Plugin:
        """The same, not loaded."""
        return replace(self, state=state, reason=reason, error=error, handlers=(), hooks=(), caller=None)


class _Unusable(Exception):
    """A plugin is not good; the message is what follows its name."""

    def __init__(self, message: str, *, state: State = "failed") -> None:
        super().__init__(message)
        self.state = state


def load_source(source: Source, settings: Mapping[str, Any]) -> Plugin:
    """Import what an entry point names, and everything else that it takes."""
    plugin = Plugin(name=source.name, origin=source.origin, entry_point=source.entry.name)
    try:
        loaded = source.entry.load()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        name = source.origin.distribution
        mend = "reinstall it" if name == OWN_DISTRIBUTION else f"install what it needs, uninstall {name}, {SKIP}"
        return plugin.out("failed", f"plugin {plugin.name} cannot be loaded: {describe(error)}; {mend}", error)
    return _finished(plugin, loaded, settings)


def load_object(given: object, settings: Mapping[str, Any]) -> Plugin:
    """A plugin that the program itself has given: a module, an object with hooks, or a handler."""
    name = given.name if isinstance(given, Handler) else getattr(given, "__name__", None)
    return _finished(Plugin(name=str(name or type(given).__name__)), given, settings)


def describe(error: BaseException) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {error}"


def _finished(plugin: Plugin, loaded: object, settings: Mapping[str, Any]) -> Plugin:
    try:
        _check_version(loaded)
        caller, hooks = _registered(loaded)
        handlers = tuple(_handlers(loaded, caller, hooks, settings))
        _check_handlers(handlers)
        if not hooks and not handlers:
            raise _Unusable(
                "cannot be used: it has no handler and implements no hook; "
                "mark its functions with @handler or @hookimpl"
            )
    except _Unusable as error:
        return plugin.out(error.state, f"plugin {plugin.name} {error}", error.__cause__ or error)
    return replace(plugin, handlers=handlers, hooks=hooks, caller=caller)


def _check_version(loaded: object) -> None:
    declared = getattr(loaded, VERSION_ATTRIBUTE, None)
    major = int(PLUGIN_API_VERSION.partition(".")[0])
    if declared is None or (declared == major and not isinstance(declared, bool)):
        return
    if not isinstance(declared, int) or isinstance(declared, bool):
        raise _Unusable(
            f"cannot be used: its {VERSION_ATTRIBUTE} is {declared!r}; write the number of a major version, such as "
            f"{VERSION_ATTRIBUTE} = {major}"
        )
    raise _Unusable(
        f"cannot be used: it was made for version {declared} of the plugin API, and this engine has "
        f"{PLUGIN_API_VERSION}; install a version of it that was made for {major}, or an engine that has {declared}",
        state="refused",
    )


def _registered(loaded: object) -> tuple[Any, tuple[str, ...]]:
    """What calls the hooks of this plugin and of no other, and the hooks that it implements."""
    if isinstance(loaded, Handler):
        return None, ()
    manager = pluggy.PluginManager(ENTRY_POINT_GROUP)
    manager.add_hookspecs(HookSpecifications)
    try:
        manager.register(loaded, name="it")
        manager.check_pending()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        said = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise _Unusable(
            f"cannot be used: {said}; the reference of the plugin API has every hook with its arguments"
        ) from error
    hooks = tuple(name for name in HOOKS if getattr(manager.hook, name).get_hookimpls())
    for name in PLAIN_HOOKS.intersection(hooks):
        for implementation in getattr(manager.hook, name).get_hookimpls():
            if inspect.iscoroutinefunction(implementation.function):
                raise _Unusable(f"cannot be used: {name} is 'async def'; make it a plain 'def'")
    return manager.hook, hooks


def _handlers(loaded: object, caller: Any, hooks: Sequence[str], settings: Mapping[str, Any]) -> Iterator[Handler]:
    if isinstance(loaded, Handler):
        yield loaded
    elif HANDLERS_HOOK in hooks:
        yield from _asked(caller, settings)
    elif isinstance(loaded, ModuleType):
        # One that has two names in its module is one.
        yield from {id(value): value for value in vars(loaded).values() if isinstance(value, Handler)}.values()


def _asked(caller: Any, settings: Mapping[str, Any]) -> Iterator[Handler]:
    try:
        given = getattr(caller, HANDLERS_HOOK)(settings=settings)
        if not given:
            raise TypeError("the hook returns nothing; return its handlers")
        handlers = list(given[0])
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise _Unusable(f"fails to register: {describe(error)}; mend its {HANDLERS_HOOK}, {SKIP}") from error
    for handler in handlers:
        if not isinstance(handler, Handler):
            raise _Unusable(f"registers {handler!r}, which is no handler: use @handler")
        yield handler


def _check_handlers(handlers: Sequence[Handler]) -> None:
    for handler in handlers:
        for argument, model, mode in (
            ("config", handler.config_model, CONFIG_MODE),
            ("output", handler.output_model, OUTPUT_MODE),
        ):
            try:
                schema_text(model, mode)
            except SchemaFault as fault:
                raise _Unusable(f"cannot be used: the {argument} of handler {handler.name!r} {fault}") from fault
