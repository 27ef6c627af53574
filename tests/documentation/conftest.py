"""Fixtures for tests that hold the documents to the code."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from postgres_server import PostgresServer
from redis_server import RedisServer
from shell_session import Session

ROOT = Path(__file__).parents[2]

# What a fresh clone does not have, and what no document needs.
NOT_COPIED = shutil.ignore_patterns(
    ".*", "__pycache__", "*.egg-info", "build", "dist", "venv", "htmlcov", "_build", "tests", "*.db*"
)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the tree: what a document tells its reader to do is done there."""
    return Path(shutil.copytree(ROOT, tmp_path / "checkout", ignore=NOT_COPIED))


@pytest.fixture
def servers(postgres_server: PostgresServer) -> Iterator[Mapping[str, str]]:
    """A database and a Redis of this test's own, as the variables that name them."""
    redis = RedisServer()
    redis.start()
    yield {
        "POSTGRES_PORT": str(postgres_server.port),
        "POSTGRES_DATABASE": postgres_server.create_database(),
        "REDIS_PORT": str(redis.port),
    }
    redis.close()


@pytest.fixture
def open_session(tmp_path: Path) -> Iterator[Callable[..., Session]]:
    """`open_session(folder, variables)`: a terminal; what was started in it is gone when the test ends."""
    sessions: list[Session] = []

    def open_one(folder: Path, variables: Mapping[str, str] | None = None) -> Session:
        state = tmp_path / f"session-{len(sessions)}"
        state.mkdir()
        sessions.append(Session(folder, state, variables or {}))
        return sessions[-1]

    yield open_one
    for session in sessions:
        session.close()
