"""A plugin that is looked at by itself: one that is installed, a project, a folder, a wheel or a file."""

from __future__ import annotations

import importlib.util
import sys
import tomllib
from collections.abc import Iterable, Mapping
from configparser import ConfigParser
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from .discovery import Plugin, PluginError, without_duplicates
from .hooks import ENTRY_POINT_GROUP
from .loading import describe, load_object, load_source
from .sources import Origin, Source, find_sources, origin_of


def load_target(target: str, settings: Mapping[str, Any]) -> list[Plugin]:
    """The plugins of a target, as they would be beside all others that are installed.

    `target` is the name of an installed distribution, or a path: of a project with a `pyproject.toml` or `setup.cfg`,
    a folder filled by pip, a wheel, or a Python file. It need not be installed. Raises `PluginError`.
    """
    path = Path(target)
    if path.suffix == ".py" and path.is_file():
        return _beside_others([_load_file(path, settings)], None, settings)
    sources = _sources_of(path) if path.exists() else _installed(target)
    if not sources:
        raise PluginError(f"{target} has no entry point of the group {ENTRY_POINT_GROUP!r}; {_how_to_name_one(path)}")
    names = {source.origin.distribution for source in sources}
    return _beside_others([load_source(source, settings) for source in sources], names, settings)


def _how_to_name_one(path: Path) -> str:
    if path.suffix == ".whl" or not path.exists():
        return "give it one in its pyproject.toml"
    return (
        f"write [project.entry-points.{ENTRY_POINT_GROUP}] into its pyproject.toml, and below it a line such as "
        'handlers = "acme_handlers"'
    )


def _beside_others(
    plugins: list[Plugin], names: Iterable[str | None] | None, settings: Mapping[str, Any]
) -> list[Plugin]:
    """The same; one that registers a name that another plugin has is not loaded."""
    own = {canonicalize_name(name or "") for name in names or ()}
    others = [
        load_source(source, settings)
        for source in find_sources()
        if canonicalize_name(source.origin.distribution or "") not in own
    ]
    return without_duplicates([*others, *plugins])[len(others) :]


def _installed(name: str) -> list[Source]:
    wanted = canonicalize_name(name)
    try:
        metadata.distribution(name)
    except (metadata.PackageNotFoundError, ValueError):
        raise PluginError(f"there is no distribution {name!r} here, and no file or folder of that name") from None
    return [each for each in find_sources() if canonicalize_name(each.origin.distribution or "") == wanted]


def _sources_of(path: Path) -> list[Source]:
    """The entry points of a path, which Python searches from now on: after all else, but for a project's own code."""
    if path.is_dir() and ((path / "pyproject.toml").is_file() or (path / "setup.cfg").is_file()):
        return _project(path)
    sys.path.append(str(path.resolve()))
    importlib.invalidate_caches()
    return [
        Source(entry, origin_of(distribution))
        for distribution in metadata.distributions(path=[str(path.resolve())])
        for entry in distribution.entry_points.select(group=ENTRY_POINT_GROUP)
    ]


def _project(path: Path) -> list[Source]:
    """What a project says of itself, whose code lies in `src` or beside its `pyproject.toml`."""
    code = path / "src" if (path / "src").is_dir() else path
    sys.path.insert(0, str(code.resolve()))
    importlib.invalidate_caches()
    name, version, entries = _read_project(path)
    return [
        Source(metadata.EntryPoint(entry, target, ENTRY_POINT_GROUP), Origin(name, version))
        for entry, target in sorted(entries.items())
    ]


def _read_project(path: Path) -> tuple[str, str | None, Mapping[str, str]]:
    try:
        if (path / "pyproject.toml").is_file():
            project = tomllib.loads((path / "pyproject.toml").read_text("utf-8")).get("project", {})
            if project:
                entries = project.get("entry-points", {}).get(ENTRY_POINT_GROUP, {})
                return project.get("name", path.name), project.get("version"), entries
        return _read_setup(path / "setup.cfg")
    except (OSError, ValueError) as error:
        raise PluginError(f"{path}: the project cannot be read: {describe(error)}") from error


def _read_setup(file: Path) -> tuple[str, str | None, Mapping[str, str]]:
    setup = ConfigParser()
    setup.read(file, "utf-8")
    lines = setup.get("options.entry_points", ENTRY_POINT_GROUP, fallback="").splitlines()
    pairs = (line.partition("=") for line in lines if "=" in line)
    name = setup.get("metadata", "name", fallback=file.parent.name)
    version = setup.get("metadata", "version", fallback="")
    known = version if version and ":" not in version else None
    return name, known, {entry.strip(): target.strip() for entry, _, target in pairs}


def _load_file(path: Path, settings: Mapping[str, Any]) -> Plugin:
    sys.path.insert(0, str(path.resolve().parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        reason = f"plugin {path} cannot be loaded: {describe(error)}; mend it, or install what it needs"
        return Plugin(name=str(path)).out("failed", reason, error)
    return load_object(module, settings)
