"""The disk of PostgreSQL runs full under load: nothing is lost, and everything goes on when there is room again."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from crew import Crew, Users
from postgres_server import UNPRIVILEGED, PostgresServer
from redis_server import RedisServer

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.campaign,
    pytest.mark.skipif(os.geteuid() != 0, reason="a small disk is mounted, which only root may do"),
]

SIZE = "160m"
FULL_SECONDS = 5.0
PATIENCE_SECONDS = 20.0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own, in memory."""
    disk = Path("/var/tmp") / f"workflow-engine-disk-{os.getpid()}"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=755", "tmpfs", str(disk)], check=False)
    if mounted.returncode != 0:
        disk.rmdir()
        pytest.skip("nothing can be mounted here")
    os.chown(disk, UNPRIVILEGED, UNPRIVILEGED)
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)
    disk.rmdir()


@pytest.fixture
def postgres(small_disk: Path) -> Iterator[PostgresServer]:
    """A durable server whose data is on the small disk."""
    server = PostgresServer(settings={"max_wal_size": "48MB", "min_wal_size": "32MB"}, data=small_disk)
    server.start()
    yield server
    server.close()


@pytest.fixture
def database(postgres: PostgresServer) -> dict[str, str]:
    """An empty database on the small disk."""
    settings = postgres.settings(postgres.create_database())
    return {name.upper(): str(value) for name, value in settings.items()}


def fill(disk: Path) -> Path:
    """Use up every byte; returns the file that does."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError as error:
                assert error.errno == errno.ENOSPC
    return ballast


async def test_the_disk_of_postgresql_is_full_for_a_while(
    start_crew: Callable[..., Awaitable[Crew]], postgres: PostgresServer, durable_redis: RedisServer, small_disk: Path
) -> None:
    durable_redis.ask("FLUSHALL")
    crew = await start_crew("all", "all", redis_port=durable_redis.port)
    async with Users(crew.urls) as users:
        await users.until_acknowledged(50)
        ballast = await asyncio.to_thread(fill, small_disk)
        answered = users.answers.copy()
        async with asyncio.timeout(60):
            while (users.answers - answered)[503] < 10:
                await asyncio.sleep(0.1)
        await asyncio.sleep(FULL_SECONDS)
        refused = users.answers - answered
        ballast.unlink()
        back_at = time.monotonic()
        await asyncio.to_thread(until_it_serves, postgres)
        served_seconds = time.monotonic() - back_at
        await users.until_acknowledged(50)
        await users.leave()
    settled_seconds = await crew.until_all_ended()
    executions = await crew.audit(users)
    print(  # noqa: T201
        f"disk full: {len(executions)} executions, answers meanwhile {dict(refused)}; PostgreSQL served again "
        f"{served_seconds:.1f} s after there was room, everything {settled_seconds:.1f} s after the last was started"
    )
    assert "No space left on device" in postgres.log()
    assert users.bad_answers == []
    assert settled_seconds < PATIENCE_SECONDS


def until_it_serves(postgres: PostgresServer) -> None:
    """It may have gone down for want of room; then somebody has to start it."""
    if not postgres.is_alive:
        postgres.start()
