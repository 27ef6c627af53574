"""Options and fixtures of the whole test suite."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from postgres_server import PostgresServer, debian_programs
from redis_server import RedisCluster, RedisServer, system_binary

# How long an example takes says how busy the machine is, and nothing about the code.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")


def positive(text: str) -> int:
    """Parse a number of seeds; none at all would test nothing and pass."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of this suite."""
    parser.addoption(
        "--simulation-seeds",
        type=positive,
        default=120,
        metavar="N",
        help="how many seeds each simulation runs (default: %(default)s)",
    )
    parser.addoption(
        "--schemathesis-examples",
        type=positive,
        default=3,
        metavar="N",
        help="how many examples schemathesis makes for each operation (default: %(default)s)",
    )
    parser.addoption(
        "--outage-seconds",
        type=positive,
        default=8,
        metavar="N",
        help="how long the chaos tests keep servers away (default: %(default)s)",
    )
    parser.addoption(
        "--chaos-seed",
        type=positive,
        default=1,
        metavar="N",
        help="which faults and executions the chaos tests draw (default: %(default)s)",
    )
    parser.addoption(
        "--chaos-executions",
        type=positive,
        default=5_000,
        metavar="N",
        help="how many executions there are at least when everything happens at once (default: %(default)s)",
    )


@pytest.fixture(scope="session")
def schemathesis_examples(pytestconfig: pytest.Config) -> int:
    """How many examples schemathesis makes for each operation, beside those of the schemas' edges."""
    examples: int = pytestconfig.getoption("--schemathesis-examples")
    return examples


@pytest.fixture(scope="session")
def simulation_seeds(pytestconfig: pytest.Config) -> int:
    """How many seeds each simulation runs."""
    seeds: int = pytestconfig.getoption("--simulation-seeds")
    return seeds


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One PostgreSQL server for all tests of the run that only ask it things."""
    server = PostgresServer()
    server.start()
    yield server
    server.close()


@pytest.fixture(scope="session")
def debian_postgres_server() -> Iterator[PostgresServer]:
    """The same of Debian's packages, an older version; the tests are skipped where none is installed."""
    programs = debian_programs()
    if programs is None:
        pytest.skip("no PostgreSQL of Debian's packages is installed (apt-get install postgresql)")
    server = PostgresServer(programs=programs)
    server.start()
    yield server
    server.close()


@pytest.fixture
def postgres_schema(postgres_server: PostgresServer) -> str:
    """An empty schema of the test's own."""
    return postgres_server.create_schema()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """One server, of the tests' packages, for all tests of the run that only ask it things."""
    server = RedisServer()
    server.start()
    yield server
    server.close()


@pytest.fixture(scope="session")
def system_redis_server() -> Iterator[RedisServer]:
    """The same of the operating system's Redis, an older one; skips what asks for it where there is none."""
    binary = system_binary()
    if binary is None:
        pytest.skip("no redis-server on this machine, or one that is too old")
    server = RedisServer(binary=binary)
    server.start()
    yield server
    server.close()


@pytest.fixture(scope="session")
def redis_cluster() -> Iterator[RedisCluster]:
    """A cluster of three nodes for all tests of the run that only ask it things."""
    cluster = RedisCluster()
    cluster.start()
    yield cluster
    cluster.close()
