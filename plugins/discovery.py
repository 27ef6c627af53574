"""Finds plugins by their entry points and collects their handlers into one catalogue."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from ..runtime.core.shape import describe_error
from ..runtime.core.template import contains_template
from ..runtime.ports import HandlerRecord
from .handler import Handler
from .loading import Plugin, load_object, load_source
from .schemas import CONFIG_MODE, OUTPUT_MODE, schema_text
from .sources import Origin, PluginError, Policy, add_folder, find_sources

__all__ = ["Catalogue", "ConfigFaults", "Origin", "Plugin", "PluginError", "discover"]

ConfigFaults = Sequence[tuple[tuple[str | int, ...], str]]


class Catalogue(Mapping[str, Handler]):
    """The handlers that exist, by name."""

    def __init__(
        self,
        handlers: Iterable[Handler],
        origins: Mapping[str, Origin] = MappingProxyType({}),
        *,
        plugins: Sequence[Plugin] = (),
        notices: Sequence[str] = (),
    ) -> None:
        """`origins`: where handlers came from, by their names, as far as that is known.

        `plugins` are all that were found, the loaded ones and the others; `notices` what an operator should hear of.
        """
        self.plugins = plugins
        self.notices = notices
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
        return [_record(self._handlers[name], self._origins.get(name, Origin())) for name in sorted(self._handlers)]


def discover(settings: Mapping[str, Any], plugins: Iterable[object] = ()) -> Catalogue:
    """The handlers of every installed plugin that may be loaded, and of `plugins`, which are given as objects.

    `settings` are the effective settings by lower-case name. Of these, `plugins_dir` says where else to look,
    `plugins_allow` what may be loaded, and `plugins_on_error` whether the others do without a plugin that is broken.
    Raises `PluginError` for all that are, each with what to do about it.
    """
    policy = Policy.of(settings)
    notices = [] if policy.folder is None else add_folder(policy.folder)
    read_only = MappingProxyType(dict(settings))
    found = without_duplicates([*_installed(policy, read_only), *_given(plugins, read_only)])
    broken = [plugin for plugin in found if plugin.error is not None]
    reasons = [str(plugin.reason) for plugin in broken]
    if reasons and policy.on_error == "stop":
        raise PluginError("\n".join(reasons)) from broken[0].error
    notices += [f"goes on without a plugin: {reason}" for reason in reasons]
    left_out = [f"{plugin.name}: {plugin.reason}" for plugin in found if plugin.state == "refused" and not plugin.error]
    notices += [f"not loaded: {each}" for each in left_out]
    return Catalogue(
        [handler for plugin in found for handler in plugin.handlers],
        {handler.name: plugin.origin for plugin in found for handler in plugin.handlers},
        plugins=found,
        notices=notices,
    )


def _installed(policy: Policy, settings: Mapping[str, Any]) -> Iterator[Plugin]:
    for source in find_sources():
        refusal = policy.refusal(source.origin)
        if refusal is None:
            yield load_source(source, settings)
        else:
            found = Plugin(name=source.name, origin=source.origin, entry_point=source.entry.name)
            yield found.out("refused", refusal)


def _given(plugins: Iterable[object], settings: Mapping[str, Any]) -> Iterator[Plugin]:
    seen: list[object] = []
    for given in plugins:
        plugin = load_object(given, settings)
        if any(given is other for other in seen):
            twice = PluginError(f"plugin {plugin.name} is given twice; give it once")
            plugin = plugin.out("failed", str(twice), twice)
        seen.append(given)
        yield plugin


def without_duplicates(plugins: Iterable[Plugin]) -> list[Plugin]:
    """The same, where one that registers a name that is taken is not loaded."""
    owners: dict[str, str] = {}
    found = []
    for plugin in plugins:
        own: dict[str, str] = {}
        taken = None
        for handler in plugin.handlers:
            owner = own.get(handler.name) or owners.get(handler.name)
            if owner is not None:
                taken = PluginError(
                    f"the handler {handler.name!r} is registered by {owner} and by {plugin.name}; remove one of them"
                )
                break
            own[handler.name] = plugin.name
        if taken is None:
            owners |= own
            found.append(plugin)
        else:
            found.append(plugin.out("failed", str(taken), taken))
    return found


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


def _record(handler: Handler, origin: Origin) -> HandlerRecord:
    return HandlerRecord(
        handler.name,
        _storable(handler.description),
        schema_text(handler.config_model, CONFIG_MODE),
        _storable_or_none(origin.distribution),
        _storable_or_none(origin.version),
        schema_text(handler.output_model, OUTPUT_MODE),
        json.dumps(declared(handler)),
    )


def declared(handler: Handler) -> dict[str, object]:
    """What a handler declares beside its models, by the names that `@handler` has for it; without what is unset.

    Of `rate_limit`, `per_key` says whether there is one limit for each key.
    """
    limit, retry = handler.rate_limit, handler.retry
    said: dict[str, object] = {
        name: getattr(handler, name)
        for name in ("lane", "timeout_seconds", "stale_timeout_seconds", "max_running_per_process", "max_running")
    }
    said["retry"] = retry and {name: value for name, value in asdict(retry).items() if value is not None}
    said["rate_limit"] = limit and {
        "count": limit.count,
        "per_seconds": limit.per_seconds,
        "per_key": limit.key is not None,
    }
    return {name: value for name, value in said.items() if value is not None}


def _storable(text: str) -> str:
    """A text that every store can hold: without NUL and lone surrogates."""
    return text.replace("\0", "").encode(errors="replace").decode()


def _storable_or_none(text: str | None) -> str | None:
    return None if text is None else _storable(text)
