"""Finds plugins by their entry points and collects their handlers into one catalogue."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from importlib import metadata
from types import MappingProxyType
from typing import Any, NamedTuple

import pluggy
from pydantic import BaseModel, ValidationError

from ..runtime.core.json_text import encode
from ..runtime.core.limits import MAX_CONFIG_SCHEMA_BYTES
from ..runtime.core.shape import describe_error
from ..runtime.core.template import contains_template
from ..runtime.ports import HandlerRecord
from .handler import Handler
from .hooks import ENTRY_POINT_GROUP, HookSpecifications

ConfigFaults = Sequence[tuple[tuple[str | int, ...], str]]


class PluginError(Exception):
    """A plugin cannot be used; the message names its distribution, its entry point and the cause."""


class Origin(NamedTuple):
    """The package that a handler came with: its distribution and version, None for a plugin given as an object."""

    distribution: str | None = None
    version: str | None = None


class Catalogue(Mapping[str, Handler]):
    """The handlers that exist, by name."""

    def __init__(self, handlers: Iterable[Handler], origins: Mapping[str, Origin] = MappingProxyType({})) -> None:
        """`origins`: where handlers came from, by their names, as far as that is known."""
        self._origins = origins
        self._handlers: dict[str, Handler] = {}
        for handler in handlers:
            if handler.name in self._handlers:
                raise PluginError(f"two handlers are called {handler.name!r}")
            self._handlers[handler.name] = handler
        self.config_checks: Mapping[str, Callable[[Mapping[str, Any]], ConfigFaults]] = {
            handler.name: _config_check(handler) for handler in self._handlers.values()
        }

    def __getitem__(self, name: str) -> Handler:
        return self._handlers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._handlers)

    def __len__(self) -> int:
        return len(self._handlers)

    @cached_property
    def records(self) -> Sequence[HandlerRecord]:
        """The handlers by name, as other processes may hear of them."""
        return [
            HandlerRecord(
                name,
                _storable(self._handlers[name].description),
                _schema_text(self._handlers[name].config_model),
                *map(_storable_or_none, self._origins.get(name, Origin())),
            )
            for name in sorted(self._handlers)
        ]


def discover(settings: Mapping[str, Any], plugins: Iterable[object] = ()) -> Catalogue:
    """The handlers of every installed plugin, and of `plugins`, which are given as objects.

    Raises `PluginError` for one that cannot be imported, breaks the hook's specification, or
    registers a name that another has.
    """
    manager = pluggy.PluginManager(ENTRY_POINT_GROUP)
    manager.add_hookspecs(HookSpecifications)
    entries = metadata.entry_points(group=ENTRY_POINT_GROUP)
    origins: dict[str, Origin] = {}
    for entry in sorted(entries, key=lambda entry: (entry.dist.name if entry.dist else "", entry.name)):
        origin = f"{entry.dist.name if entry.dist else 'unknown'} (entry point {entry.name})"
        try:
            manager.register(entry.load(), name=origin)
        except (Exception, SystemExit) as error:
            raise PluginError(f"plugin {origin} cannot be loaded: {type(error).__name__}: {error}") from error
        if entry.dist is not None:
            versions = entry.dist.metadata.get_all("Version", [])
            origins[origin] = Origin(entry.dist.name, next(iter(versions), None))
    for plugin in plugins:
        try:
            manager.register(plugin)
        except (ValueError, pluggy.PluginValidationError) as error:
            raise PluginError(f"plugin {plugin!r} cannot be used: {type(error).__name__}: {error}") from error
    try:
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise PluginError(f"plugin {manager.get_name(error.plugin)} cannot be used: {error}") from error
    for plugin in manager.get_plugins():
        if not manager.get_hookcallers(plugin):
            raise PluginError(
                f"plugin {manager.get_name(plugin)} implements no hook: mark its functions with @hookimpl"
            )
    found = list(_collect(manager, MappingProxyType(dict(settings))))
    of_handlers = {handler.name: origins[plugin] for handler, plugin in found if plugin in origins}
    return Catalogue((handler for handler, _ in found), of_handlers)


def _collect(manager: pluggy.PluginManager, settings: Mapping[str, Any]) -> Iterator[tuple[Handler, str]]:
    """Every handler, with the name of its plugin."""
    owners: dict[str, str] = {}
    for implementation in manager.hook.workflow_engine_handlers.get_hookimpls():
        caller = manager.subset_hook_caller(
            "workflow_engine_handlers",
            [plugin for plugin in manager.get_plugins() if plugin is not implementation.plugin],
        )
        try:
            given = caller(settings=settings)
            if not given:
                raise TypeError("the hook returns nothing; return its handlers")
            handlers = list(given[0])
        except (Exception, SystemExit) as error:
            raise PluginError(
                f"plugin {implementation.plugin_name} fails to register: {type(error).__name__}: {error}"
            ) from error
        for handler in handlers:
            if not isinstance(handler, Handler):
                raise PluginError(
                    f"plugin {implementation.plugin_name} registers {handler!r}, which is no handler: use @handler"
                )
            if handler.name in owners:
                raise PluginError(
                    f"the handler {handler.name!r} is registered by {owners[handler.name]} and "
                    f"by {implementation.plugin_name}; remove one of them"
                )
            owners[handler.name] = str(implementation.plugin_name)
            yield handler, owners[handler.name]


def _config_check(handler: Handler) -> Callable[[Mapping[str, Any]], ConfigFaults]:
    model = handler.config_model

    def check(config: Mapping[str, Any]) -> ConfigFaults:
        if model is None:
            return ()
        try:
            model.model_validate(config)
        except ValidationError as error:
            return [(detail["loc"], describe_error(detail, model)) for detail in error.errors(include_url=False)]
        except Exception as error:
            # A validator that stumbles. It may have stumbled over a template, which will be a value by then.
            return () if contains_template(config) else [((), f"cannot be checked: {type(error).__name__}: {error}")]
        return ()

    return check


def _schema_text(model: type[BaseModel] | None) -> str | None:
    """The JSON Schema of a model; None without one, and for one that JSON Schema has no words for."""
    if model is None:
        return None
    try:
        with warnings.catch_warnings(action="ignore"):  # of a default that is no JSON, and is left out
            return encode(model.model_json_schema(), MAX_CONFIG_SCHEMA_BYTES).decode()
    except Exception:  # whatever a plugin's model raises: it is good enough to run
        return None


def _storable(text: str) -> str:
    """A text that every store can hold: without NUL and lone surrogates."""
    return text.replace("\0", "").encode(errors="replace").decode()


def _storable_or_none(text: str | None) -> str | None:
    return None if text is None else _storable(text)
