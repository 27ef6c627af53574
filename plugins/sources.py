"""Where plugins come from: the distributions that are installed, a folder beside them, and who may be loaded."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, NamedTuple

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from .hooks import ENTRY_POINT_GROUP

OWN_DISTRIBUTION = "workflow-orchestration-engine"
EVERYTHING = "*"


class PluginError(Exception):
    """A plugin cannot be used; the message names its distribution, its entry point, the cause and how to mend it."""


class Origin(NamedTuple):
    """The package that a handler came with: its distribution and version, None for a plugin given as an object."""

    distribution: str | None = None
    version: str | None = None


class Source(NamedTuple):
    """An entry point that names a plugin, and the distribution that has it."""

    entry: metadata.EntryPoint
    origin: Origin

    @property
    def name(self) -> str:
        """As messages name the plugin."""
        distribution, version = self.origin
        words = f"{distribution or 'unknown'} {version}" if version else distribution or "unknown"
        return f"{words} (entry point {self.entry.name} = {self.entry.value})"


class Policy(NamedTuple):
    """What may be loaded, and what happens when it cannot be.

    `allow`: requirements, such as `acme-handlers>=1,<2`, or `*`; None allows everything.
    """

    allow: tuple[str, ...] | None
    on_error: Literal["stop", "skip"]
    folder: Path | None

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Policy:
        """As the settings say."""
        folder = settings.get("plugins_dir")
        return cls(settings.get("plugins_allow"), settings.get("plugins_on_error", "stop"), folder and Path(folder))

    def refusal(self, origin: Origin) -> str | None:
        """Why a distribution may not be loaded; None if it may."""
        if self.allow is None or EVERYTHING in self.allow:
            return None
        name = canonicalize_name(origin.distribution or "")
        if name == OWN_DISTRIBUTION:
            return None
        wanted = [each for each in map(Requirement, self.allow) if canonicalize_name(each.name) == name]
        if not wanted:
            return f"PLUGINS_ALLOW does not name it; add {name} to load it"
        if any(_has_version(each, origin.version) for each in wanted):
            return None
        return f"PLUGINS_ALLOW wants {' or '.join(map(str, wanted))}; install that, or allow {name}=={origin.version}"


def _has_version(requirement: Requirement, version: str | None) -> bool:
    try:
        return not requirement.specifier or requirement.specifier.contains(Version(version or ""), prereleases=True)
    except InvalidVersion:
        return False


def find_sources() -> list[Source]:
    """Every entry point of the group: the engine's own first, then by the distributions' names."""
    found = []
    for entry in metadata.entry_points(group=ENTRY_POINT_GROUP):
        found.append(Source(entry, Origin() if entry.dist is None else origin_of(entry.dist)))
    return sorted(found, key=_place)


def origin_of(distribution: metadata.Distribution) -> Origin:
    """Its name and version; what is damaged may lack them."""
    names, versions = (distribution.metadata.get_all(key, []) for key in ("Name", "Version"))
    return Origin(next(iter(names), None), next(iter(versions), None))


def _place(source: Source) -> tuple[bool, str, str, str]:
    name = canonicalize_name(source.origin.distribution or "")
    return name != OWN_DISTRIBUTION, name, source.entry.name, source.entry.value


def add_folder(folder: Path) -> list[str]:
    """Let a folder that `pip install --target` has filled be searched, after all else; returns what to know of it.

    Files ending in `.pth`, which run code at the start of Python, are not run. Raises `PluginError`.
    """
    if not folder.is_dir():
        raise PluginError(f"PLUGINS_DIR: there is no folder {folder}; make it, or unset PLUGINS_DIR")
    place = str(folder.resolve())
    elsewhere = [path for path in sys.path if path != place]
    if place not in sys.path:
        sys.path.append(place)
        importlib.invalidate_caches()
    return [*_hidden(place, elsewhere), *_not_run(folder)]


def _hidden(place: str, elsewhere: list[str]) -> Iterator[str]:
    """What is installed elsewhere too, which is what is used."""
    there, here = _versions([place]), _versions(elsewhere)
    both = [f"{name} {there[name]} (used: {here[name]})" for name in sorted(there) if name in here]
    if both:
        yield f"PLUGINS_DIR has packages that are installed beside it as well, where they are used: {', '.join(both)}"


def _versions(path: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for distribution in metadata.distributions(path=path):
        name, version = origin_of(distribution)
        if name:
            found.setdefault(canonicalize_name(name), version or "without a version")
    return found


def _not_run(folder: Path) -> Iterator[str]:
    names = _names(folder.glob("*.pth"))
    if names:
        yield f"PLUGINS_DIR has files that Python would run at its start, and that are not run: {', '.join(names)}"


def _names(files: Iterable[Path]) -> list[str]:
    return sorted(file.name for file in files)
