"""The rules of the tree, checked on the files as they lie on disk.

Files are parsed, never imported: in an editable install a walk over the imported package sees almost
nothing and so passes. Each rule is a function from the root of a tree to its findings, and each is also
run on a bad sample, so that none of them can pass by looking at nothing.
"""

from __future__ import annotations

import ast
import gc
import graphlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "workflow_engine"
FOLDERS = ("package", "runtime", "plugins", "handlers", "config", "sql", "observability")
MAX_FUNCTION_LINES = 70
MAX_FILE_LINES = 500

# The arrows. A room is a folder or a single file; whatever is not listed is forbidden.
CORE = frozenset({"runtime/core"})
CLOCK = CORE | {"runtime/errors.py", "runtime/clock.py"}
PORTS = CLOCK | {"runtime/ports.py", "runtime/broker.py"}
FOUNDATION = PORTS | {"runtime/failpoints.py"}
MAY_IMPORT: dict[str, frozenset[str]] = {
    "runtime/core": frozenset(),
    "runtime/errors.py": CORE,
    "runtime/clock.py": CORE | {"runtime/errors.py"},
    "runtime/failpoints.py": CLOCK,
    "runtime/grouping.py": frozenset(),
    "runtime/ports.py": CLOCK,
    "runtime/broker.py": CLOCK,
    "sql": frozenset(),
    "config": CORE,
    "plugins": CORE | {"runtime/ports.py"},
    "handlers": frozenset({"plugins"}),
    "observability": CORE | {"runtime/ports.py", "runtime/errors.py"},
    "runtime/store": FOUNDATION | {"runtime/audit.py", "runtime/grouping.py", "sql"},
    "runtime/transport": FOUNDATION | {"runtime/grouping.py", "observability"},
    "runtime/graphs.py": {"runtime/core", "runtime/ports.py"},
    "runtime/audit.py": PORTS | {"runtime/graphs.py"},
    "runtime/known_handlers.py": PORTS,
    "runtime/orchestrator": FOUNDATION | {"runtime/graphs.py", "observability"},
    "runtime/event_loop.py": frozenset(),
    "runtime/watchdog.py": CLOCK,
    "runtime/plugin_hooks.py": PORTS | {"plugins", "observability"},
    "runtime/worker": FOUNDATION
    | {"runtime/event_loop.py", "runtime/graphs.py", "runtime/plugin_hooks.py", "plugins", "observability"},
    "runtime/definitions.py": FOUNDATION | {"runtime/graphs.py", "runtime/known_handlers.py"},
    "runtime/dead_letters.py": FOUNDATION,
    "runtime/engine.py": FOUNDATION | {"runtime/graphs.py", "runtime/definitions.py", "runtime/dead_letters.py"},
    "runtime/api": PORTS
    | {"runtime/definitions.py", "runtime/dead_letters.py", "runtime/engine.py", "plugins", "observability"},
    "package": frozenset({"runtime/cli", "plugins"}),
    "runtime/__init__.py": frozenset(),
}
# The command line and the composition root build everything, so they may import everything.
UNRESTRICTED = ("runtime/cli", "runtime/process.py", "runtime/parts.py")
ROOMS = (*MAY_IMPORT, *UNRESTRICTED)

# What the core may import from elsewhere: no I/O, no time, no randomness, no concurrency, no logging.
CORE_MODULES = re.compile(
    "__future__|abc|base64|binascii|bisect|collections|contextlib|copy|dataclasses|decimal|difflib|enum"
    "|fractions|functools|graphlib|hashlib|heapq|itertools|json|jsonschema|math|numbers|operator|pydantic"
    "|pydantic_core|re|re2|referencing|string|struct|textwrap|types|typing|unicodedata|zlib"
)

CLOCK_NAMES = re.compile(
    r"(random|uuid|secrets)(\..*)?"
    r"|time\.(time|monotonic|perf_counter)(_ns)?|time\.(sleep|\*)"
    r"|datetime\.(datetime\.(now|utcnow|today)|date\.today)"
    r"|os\.(urandom|getrandom)"
)
ENVIRONMENT_NAMES = re.compile(r"os\.(environb?|getenvb?|putenv|unsetenv)")

STATEMENT = re.compile(
    r"\s*(SELECT\s|INSERT\s+(OR\s+\w+\s+)?INTO\b|REPLACE\s+INTO\b|UPDATE\s+\S+\s+SET\b|DELETE\s+FROM\b"
    r"|WITH\s+(RECURSIVE\s+)?\w+\s*(\([^)]*\)\s*)?AS\s*\(|TRUNCATE\s"
    r"|(CREATE|ALTER|DROP)\s+([A-Z]+\s+)*(TABLE|INDEX|VIEW|TRIGGER|FUNCTION|TYPE|SCHEMA|SEQUENCE)\b"
    r"|(INSERT|UPDATE|DELETE|CREATE|ALTER|DROP)\s+$"
    r"|select\s.*\sfrom\s|insert\s+into\s|update\s+\S+\s+set\s|delete\s+from\s)",
    re.DOTALL,
)
CONNECTION_STATEMENT = re.compile(
    r"\s*(PRAGMA\s|ATTACH\s|SAVEPOINT\s|RELEASE\s|(BEGIN|COMMIT|ROLLBACK|VACUUM)\b(\s+[A-Z]+)*\s*(;|$))"
)


@dataclass(frozen=True, slots=True)
class Source:
    """One parsed file; `path` is relative to the root of the tree."""

    path: str
    text: str
    tree: ast.Module

    def at(self, line: int) -> str:
        return f"{self.path}:{line}"


@cache
def parse(root: Path, file: Path) -> Source:
    text = file.read_text(encoding="utf-8")
    # A collection that runs in the middle of it makes CPython 3.11 fail with "recursion depth mismatch".
    gc.disable()
    try:
        tree = ast.parse(text, filename=str(file))
    finally:
        gc.enable()
    return Source(file.relative_to(root).as_posix(), text, tree)


def sources(root: Path, *folders: str) -> Iterator[Source]:
    """The files of the folders named; of all rooms when none is."""
    for folder in folders or FOLDERS:
        for file in sorted((root / folder).rglob("*.py")):
            yield parse(root, file)


def is_in(source: Source, *places: str) -> bool:
    return any(source.path == place or source.path.startswith(place + "/") for place in places)


# --- which room imports which ---------------------------------------------------------------------


def room_of(parts: list[str]) -> str:
    """The room of a module, given as the parts of its path; names inside the module may follow."""
    for length in range(len(parts), 0, -1):
        prefix = "/".join(parts[:length])
        for room in (prefix, f"{prefix}.py"):
            if room in ROOMS:
                return room
    return "runtime/__init__.py" if parts[0] == "runtime" else "package"


def module_parts(source: Source) -> list[str]:
    """Where a file is in the tree: `runtime/store/sqlite.py` is runtime, store, sqlite."""
    return source.path.removesuffix(".py").removesuffix("/__init__").split("/")


def own_parts(dotted: str) -> list[str] | None:
    """The place in the tree that an absolute name means; None when the name is not ours."""
    head, *rest = dotted.split(".")
    if head != PACKAGE:
        return None
    return rest if rest and rest[0] in FOLDERS[1:] else ["package", *rest]


def absolute_name(source: Source, node: ast.ImportFrom) -> str | None:
    """The module that a `from` import names; None when its dots lead out of the import package."""
    if not node.level:
        return node.module
    here = [PACKAGE, *module_parts(source)]
    if here[1] == "package":
        del here[1]
    if not source.path.endswith("/__init__.py"):
        del here[-1]
    if node.level > len(here):
        return None
    return ".".join([*here[: len(here) - node.level + 1], *([node.module] if node.module else [])])


@dataclass(frozen=True, slots=True)
class Import:
    """One imported name. `target` is its place in our tree, or None; `name` is what the file says."""

    line: int
    name: str
    relative: bool
    target: list[str] | None


def imports(source: Source) -> Iterator[Import]:
    """Every import of a file: at the top, inside functions, under `if TYPE_CHECKING`."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(node.lineno, alias.name, False, own_parts(alias.name))
        elif isinstance(node, ast.ImportFrom):
            name = f"{'.' * node.level}{node.module or ''}"
            base = absolute_name(source, node)
            for alias in node.names:
                target = None if base is None else own_parts(f"{base}.{alias.name}")
                yield Import(node.lineno, name, node.level > 0, target)


def wrong_arrows(root: Path) -> list[str]:
    """Imports go one way, along the table."""
    findings = []
    for source in sources(root):
        room = room_of(module_parts(source))
        if room in UNRESTRICTED:
            continue
        for each in imports(source):
            target = None if each.target is None else room_of(each.target)
            if target is not None and target not in (room, *MAY_IMPORT[room]):
                findings.append(f"{source.at(each.line)}: {room} -> {target}")
    return findings


def files_without_a_room(root: Path) -> list[str]:
    """Every file belongs to a room, so no file escapes the table."""
    lost = (s for s in sources(root) if room_of(module_parts(s)) == "runtime/__init__.py")
    return [f"{source.path}: belongs to no room" for source in lost if source.path != "runtime/__init__.py"]


def rooms_without_files(root: Path) -> list[str]:
    """Every room of the table is there, so that no rule passes by looking at nothing."""
    seen = {room_of(module_parts(source)) for source in sources(root)}
    return [f"{room}: no file found" for room in ROOMS if room not in seen]


def wrong_import_style(root: Path) -> list[str]:
    """Relative in the rooms, absolute in `package/`; a folder is never imported by its bare name."""
    findings = []
    for source in sources(root):
        for each in imports(source):
            place = f"{source.at(each.line)}: {each.name}"
            if each.relative and each.target is None:
                findings.append(f"{place} leaves the import package")
            elif each.name.split(".")[0] in FOLDERS:
                findings.append(f"{place} exists only when the tree is on the path")
            elif each.target is not None and each.relative == is_in(source, "package"):
                findings.append(f"{place} must be {'absolute' if each.relative else 'relative'} here")
    return findings


def impure_core(root: Path) -> list[str]:
    """The core imports values and functions only."""
    return [
        f"{source.at(each.line)}: the core must not import {each.name}"
        for source in sources(root, "runtime/core")
        for each in imports(source)
        if not each.relative and each.target is None and not CORE_MODULES.fullmatch(each.name.split(".")[0])
    ]


# --- what may be called where -----------------------------------------------------------------------


def dotted(node: ast.expr, aliases: dict[str, str]) -> str | None:
    """`d.now`, after `from datetime import datetime as d`, is `datetime.datetime.now`."""
    if isinstance(node, ast.Name):
        return aliases.get(node.id)
    if isinstance(node, ast.Attribute):
        base = dotted(node.value, aliases)
        return None if base is None else f"{base}.{node.attr}"
    return None


def bindings(source: Source) -> Iterator[tuple[int, str, str]]:
    """(line, name here, full name) of everything that a file imports from elsewhere."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                full = alias.name if alias.asname else alias.name.split(".")[0]
                yield node.lineno, alias.asname or full, full
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            for alias in node.names:
                yield node.lineno, alias.asname or alias.name, f"{node.module}.{alias.name}"


def used_names(source: Source) -> Iterator[tuple[int, str]]:
    """Every name of another module that a file imports or reads, under its full name."""
    aliases = {}
    for line, name, full in bindings(source):
        aliases[name] = full
        yield line, full
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute) and (full_name := dotted(node, aliases)):
            yield node.lineno, full_name


def names_matching(pattern: re.Pattern[str], root: Path, *allowed: str) -> list[str]:
    return [
        f"{source.at(line)}: {name} outside {', '.join(allowed)}"
        for source in sources(root)
        if not is_in(source, *allowed)
        for line, name in used_names(source)
        if pattern.fullmatch(name)
    ]


def time_or_chance(root: Path) -> list[str]:
    """Time, randomness and identifiers come from the clock, so that a test can own them."""
    return names_matching(CLOCK_NAMES, root, "runtime/clock.py")


def environment_outside_config(root: Path) -> list[str]:
    """Only the settings read environment variables, and what looks for the secrets of handlers there."""
    return names_matching(ENVIRONMENT_NAMES, root, "config", "plugins/secrets.py")


def is_constant(node: ast.expr) -> bool:
    """Whether a delay is written in the code: a number other than zero, a NAME, or arithmetic on such."""
    match node:
        case ast.Constant():
            return node.value != 0
        case ast.Name():
            return node.id.isupper()
        case ast.Attribute():
            return node.attr.isupper()
        case ast.BinOp():
            return is_constant(node.left) and is_constant(node.right)
        case _:
            return False


def constant_sleeps(root: Path) -> list[str]:
    """Nothing waits for a fixed time but through the clock; `asyncio.sleep(0)` only lets others run."""
    findings = []
    for source in sources(root):
        if is_in(source, "runtime/clock.py", "handlers/demo.py"):
            continue
        aliases = {here: full for _, here, full in bindings(source)}
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Call) and dotted(node.func, aliases) == "asyncio.sleep":
                delays = [*node.args[:1], *(each.value for each in node.keywords if each.arg == "delay")]
                if any(map(is_constant, delays)):
                    findings.append(f"{source.at(node.lineno)}: asyncio.sleep for a fixed time")
    return findings


def sleeping_tests(root: Path) -> list[str]:
    """Tests wait for what they need to see, never for time to pass."""
    return [
        f"{source.at(line)}: time.sleep in a test"
        for source in sources(root, "tests")
        for line, name in used_names(source)
        if name == "time.sleep"
    ]


def stray_prints(root: Path) -> list[str]:
    """Only the command line prints."""
    return [
        f"{source.at(node.lineno)}: print outside runtime/cli"
        for source in sources(root)
        if not is_in(source, "runtime/cli")
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]


# --- texts and sizes --------------------------------------------------------------------------------


def literals(source: Source) -> Iterator[tuple[int, str]]:
    """Every string that is used as a value, f-strings with `{}` for what is filled in; no docstrings."""
    skipped: set[ast.AST] = set()
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            skipped.add(node.value)
        elif isinstance(node, ast.JoinedStr):
            skipped.update(node.values)
            parts = (part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
            yield node.lineno, "".join(str(part) for part in parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in skipped:
            yield node.lineno, node.value


def sql_in_code(root: Path) -> list[str]:
    """Statements live in `.sql` files; the stores may only open, close and tune what surrounds them."""
    findings = []
    for source in sources(root):
        for line, text in literals(source):
            connection = not is_in(source, "runtime/store") and CONNECTION_STATEMENT.match(text)
            if connection or STATEMENT.match(text):
                findings.append(f"{source.at(line)}: SQL outside a .sql file: {' '.join(text.split())[:40]}")
    return findings


def long_functions(root: Path) -> list[str]:
    """A function fits on a page."""
    findings = []
    for source in sources(root):
        for node in ast.walk(source.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > MAX_FUNCTION_LINES:
                    findings.append(f"{source.at(node.lineno)}: {node.name} has {lines} lines")
    return findings


def long_files(root: Path) -> list[str]:
    """A file can be read in one go."""
    counted = ((source.path, len(source.text.splitlines())) for source in sources(root))
    return [f"{path}: {lines} lines" for path, lines in counted if lines > MAX_FILE_LINES]


# --- the tests --------------------------------------------------------------------------------------

Rule = Callable[[Path], list[str]]

BAD_SAMPLES: list[tuple[Rule, str, str, str]] = [
    (wrong_arrows, "runtime/core/a.py", "from ..ports import Store", "1: runtime/core -> runtime/ports.py"),
    (wrong_arrows, "runtime/core/a.py", "from .. import clock", "runtime/core -> runtime/clock.py"),
    (wrong_arrows, "runtime/core/a.py", "from ... import plugins", "runtime/core -> plugins"),
    (wrong_arrows, "runtime/core/a.py", "from .. import x", "runtime/core -> runtime/__init__.py"),
    (wrong_arrows, "runtime/core/__init__.py", "from ..store import x", "runtime/core -> runtime/store"),
    (wrong_arrows, "runtime/store/a.py", "def f():\n from ..worker import x", "2: runtime/store -> "),
    (wrong_arrows, "runtime/engine.py", "if TYPE_CHECKING:\n    from .api import x", ".py -> runtime/api"),
    (wrong_arrows, "runtime/api/a.py", "from ..store.sqlite import x", "runtime/api -> runtime/store"),
    (wrong_arrows, "runtime/worker/a.py", "from ..orchestrator import x", "runtime/worker -> runtime/orch"),
    (wrong_arrows, "handlers/a.py", "from ..runtime.core.state import x", "handlers -> runtime/core"),
    (wrong_arrows, "handlers/a.py", "import workflow_engine.config", "handlers -> config"),
    (wrong_arrows, "config/a.py", "from .. import __version__", "config -> package"),
    (wrong_arrows, "package/a.py", "from workflow_engine import config", "package -> config"),
    (files_without_a_room, "runtime/a.py", "", "runtime/a.py: belongs to no room"),
    (wrong_import_style, "plugins/a.py", "from ...x import y", "...x leaves the import package"),
    (wrong_import_style, "plugins/a.py", "from runtime.core import x", "runtime.core exists only when"),
    (wrong_import_style, "plugins/a.py", "import config", "config exists only when"),
    (wrong_import_style, "plugins/a.py", "import workflow_engine.runtime", "must be relative here"),
    (wrong_import_style, "package/a.py", "from .runtime.cli import x", ".runtime.cli must be absolute here"),
    (impure_core, "runtime/core/a.py", "import asyncio", "the core must not import asyncio"),
    (impure_core, "runtime/core/a.py", "from os.path import join", "the core must not import os.path"),
    (impure_core, "runtime/core/a/b.py", "def f():\n import logging", "2: the core must not import logging"),
    (time_or_chance, "handlers/a.py", "import time as t\nx = t.monotonic", "2: time.monotonic"),
    (time_or_chance, "handlers/a.py", "from time import sleep", "1: time.sleep"),
    (time_or_chance, "sql/a.py", "from datetime import datetime as d\nd.now()", "2: datetime.d"),
    (time_or_chance, "sql/a.py", "import datetime\ndatetime.date.today()", "datetime.date.today"),
    (time_or_chance, "runtime/api/a.py", "import random", "1: random"),
    (time_or_chance, "runtime/api/a.py", "from uuid import uuid4", "1: uuid.uuid4"),
    (time_or_chance, "runtime/api/a.py", "import secrets", "1: secrets"),
    (time_or_chance, "runtime/api/a.py", "import os\nos.urandom(8)", "2: os.urandom"),
    (environment_outside_config, "runtime/process.py", "import os\nos.environ['A']", "2: os.environ"),
    (environment_outside_config, "runtime/process.py", "from os import getenv", "1: os.getenv"),
    (constant_sleeps, "runtime/worker/a.py", "import asyncio as a\na.sleep(0.1)", "2: asyncio.sleep"),
    (constant_sleeps, "runtime/worker/a.py", "import asyncio\nasyncio.sleep(delay=2 * PAUSE)", "2: a"),
    (sleeping_tests, "tests/unit/a.py", "from time import sleep as pause", "1: time.sleep"),
    (sleeping_tests, "tests/a.py", "import time\ntime.sleep(1)", "2: time.sleep"),
    (stray_prints, "runtime/process.py", "print('x')", "1: print"),
    (sql_in_code, "runtime/store/a.py", "x = 'SELECT 1'", "1: SQL outside a .sql file: SELECT 1"),
    (sql_in_code, "runtime/store/a.py", "x = f'UPDATE {t} SET a = 1'", "UPDATE {} SET a = 1"),
    (sql_in_code, "runtime/store/a.py", "x = '\\n  INSERT INTO t VALUES (1)'", "INSERT INTO t"),
    (sql_in_code, "runtime/store/a.py", "x = 'delete from t'", "delete from t"),
    (sql_in_code, "runtime/store/a.py", "x = 'DELETE ' + 'FROM t'", "DELETE"),
    (sql_in_code, "sql/a.py", "x = 'CREATE UNIQUE INDEX i ON t (a)'", "CREATE UNIQUE INDEX"),
    (sql_in_code, "runtime/api/a.py", "x = 'BEGIN IMMEDIATE'", "BEGIN IMMEDIATE"),
    (sql_in_code, "runtime/api/a.py", "x = 'PRAGMA user_version'", "PRAGMA user_version"),
    (long_functions, "plugins/a.py", "async def f():" + "\n x()" * MAX_FUNCTION_LINES, "1: f has 71 lines"),
    (long_files, "plugins/a.py", "\n" * (MAX_FILE_LINES + 1), "plugins/a.py: 501 lines"),
]

GOOD_SAMPLES: list[tuple[Rule, str, str]] = [
    (wrong_arrows, "runtime/store/a.py", "from . import b\nfrom ..core.state import x\nfrom ...sql import y"),
    (wrong_arrows, "runtime/cli/a.py", "from ... import __version__\nfrom ...config import x"),
    (wrong_arrows, "package/a.py", "from workflow_engine.runtime.cli import main\nimport aiohttp"),
    (impure_core, "runtime/core/a.py", "from __future__ import annotations\nimport json\nfrom . import b"),
    (time_or_chance, "runtime/clock.py", "import time, random\ntime.monotonic()"),
    (time_or_chance, "runtime/api/a.py", "import time\ntime.gmtime(x)\nclock.time()\nrandom()"),
    (environment_outside_config, "config/a.py", "import os\nos.environ"),
    (constant_sleeps, "sql/a.py", "from asyncio import sleep\nsleep(0)\nsleep(delay)\nclock.sleep(1)"),
    (constant_sleeps, "handlers/demo.py", "import asyncio\nasyncio.sleep(1)"),
    (stray_prints, "runtime/cli/a.py", "print('x')"),
    (sql_in_code, "runtime/store/a.py", "'SELECT 1'\nx = 'PRAGMA user_version', 'COMMIT'"),
    (sql_in_code, "runtime/api/a.py", "x = 'DELETE', 'Update the set', 'select one', f'DELETE {x}'"),
]

RULES = dict.fromkeys(rule for rule, *_ in BAD_SAMPLES)


def write(root: Path, path: str, text: str) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def label(value: object) -> str | None:
    """Names for the samples: the rule and the path; the texts only get numbers."""
    if isinstance(value, str):
        return value if value.endswith(".py") else None
    return str(getattr(value, "__name__", value))


@pytest.mark.parametrize("rule", [*RULES, rooms_without_files], ids=label)
def test_the_tree_keeps_the_rule(rule: Rule) -> None:
    findings = rule(ROOT)
    assert not findings, "\n".join(findings)


@pytest.mark.parametrize(("rule", "path", "text", "expected"), BAD_SAMPLES, ids=label)
def test_the_rule_finds_what_is_wrong(tmp_path: Path, rule: Rule, path: str, text: str, expected: str) -> None:
    write(tmp_path, path, text)
    assert [finding for finding in rule(tmp_path) if path in finding and expected in finding]


@pytest.mark.parametrize(("rule", "path", "text"), GOOD_SAMPLES, ids=label)
def test_the_rule_lets_pass_what_is_right(tmp_path: Path, rule: Rule, path: str, text: str) -> None:
    write(tmp_path, path, text)
    assert rule(tmp_path) == []


@pytest.mark.parametrize("missing", ROOMS)
def test_a_room_without_files_is_found(tmp_path: Path, missing: str) -> None:
    for room in ROOMS:
        if room != missing:
            write(tmp_path, room if room.endswith(".py") else f"{room}/a.py", "")
    assert rooms_without_files(tmp_path) == [f"{missing}: no file found"]


def test_the_tests_are_there_to_be_checked() -> None:
    assert Path(__file__).relative_to(ROOT).as_posix() in {source.path for source in sources(ROOT, "tests")}


def test_the_table_has_no_circle() -> None:
    graphlib.TopologicalSorter({room: MAY_IMPORT[room] - {*UNRESTRICTED} for room in MAY_IMPORT}).prepare()
