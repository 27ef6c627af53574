"""The routes and commands of plugins, checked: what the API and the command line would otherwise stumble over."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar, get_args

from packaging.utils import canonicalize_name
from pydantic import BaseModel

from .loading import Plugin, describe
from .sources import PluginError
from .values import PluginCommand, PluginRoute, RouteScope

ROUTES_HOOK = "workflow_engine_routes"
COMMANDS_HOOK = "workflow_engine_commands"
METHODS = ("GET", "POST", "DELETE")

_PATH = re.compile(r"(/[A-Za-z0-9_.~-]+|/\{[A-Za-z_][A-Za-z0-9_]*\})+")
_PART = re.compile(r"\{\w+\}")
_COMMAND = re.compile(r"[a-z][a-z0-9-]{0,63}")

Offer = TypeVar("Offer", PluginRoute, PluginCommand)


class NamedRoute(NamedTuple):
    """A plugin's route, and the whole path that it is served at."""

    plugin: str
    path: str
    route: PluginRoute


def routes_of(plugins: Iterable[Plugin]) -> list[NamedRoute]:
    """The routes of these plugins. Raises `PluginError`."""
    found: dict[tuple[str, str], NamedRoute] = {}
    for plugin in plugins:
        for route in _offers(plugin, ROUTES_HOOK, PluginRoute):
            fault = _fault_of_route(route)
            if fault is not None:
                raise PluginError(f"plugin {plugin.name}: its route {route.method} {route.path} {fault}")
            path = f"/v1/plugins/{_segment(plugin)}{route.path}"
            other = found.setdefault((route.method, _PART.sub("{}", path)), NamedRoute(plugin.name, path, route))
            if other.route is not route:
                raise PluginError(
                    f"plugin {plugin.name}: its route {route.method} {route.path} is there already, of {other.plugin}; "
                    "give it another path"
                )
    return list(found.values())


def commands_of(plugins: Iterable[Plugin], taken: Sequence[str]) -> dict[str, PluginCommand]:
    """The commands of these plugins by name; `taken` are the engine's own. Raises `PluginError`."""
    found: dict[str, tuple[str, PluginCommand]] = {}
    for plugin in plugins:
        for command in _offers(plugin, COMMANDS_HOOK, PluginCommand):
            name = command.name
            other = "the engine" if name in taken else found[name][0] if name in found else None
            if not isinstance(name, str) or not _COMMAND.fullmatch(name):
                raise PluginError(f"plugin {plugin.name}: the command name {name!r} does not match {_COMMAND.pattern}")
            if other is not None:
                raise PluginError(
                    f"plugin {plugin.name}: its command {name!r} is there already, of {other}; give it another name"
                )
            found[name] = (plugin.name, command)
    return {name: command for name, (_, command) in found.items()}


def _offers(plugin: Plugin, hook: str, kind: type[Offer]) -> Iterator[Offer]:
    if hook not in plugin.hooks:
        return
    try:
        answers: list[Any] = getattr(plugin.caller, hook)()
        offers = list(answers[0]) if answers else []
    except (Exception, SystemExit) as error:
        raise PluginError(f"plugin {plugin.name}: its {hook} raised {describe(error)}; mend it") from error
    for offer in offers:
        if not isinstance(offer, kind):
            raise PluginError(f"plugin {plugin.name}: its {hook} returns {offer!r}, which is no {kind.__name__}")
        yield offer


def _fault_of_route(route: PluginRoute) -> str | None:
    if route.method not in METHODS:
        return f"has a method that routes of plugins cannot have; there are {', '.join(METHODS)}"
    if not isinstance(route.path, str) or not _PATH.fullmatch(route.path):
        return "has a path that is none; write it like /invoices/{id}"
    if route.scope not in get_args(RouteScope):
        return f"has the scope {route.scope!r}; there are {', '.join(get_args(RouteScope))}"
    if not inspect.iscoroutinefunction(route.run):
        return "has a run that is no 'async def'"
    if route.body is not None and route.method != "POST":
        return "takes a body; only POST does"
    for name in ("query", "body", "answer"):
        model = getattr(route, name)
        if model is not None and not (isinstance(model, type) and issubclass(model, BaseModel)):
            return f"has a {name} that is no pydantic model: {model!r}"
    return None


def _segment(plugin: Plugin) -> str:
    """The part of a path that is a plugin's: its distribution's name, or its own where it was given as an object."""
    if plugin.origin.distribution is not None:
        return str(canonicalize_name(plugin.origin.distribution))
    return re.sub(r"[^a-z0-9]+", "-", plugin.name.lower()).strip("-") or "plugin"
