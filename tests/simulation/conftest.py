"""Simulated worlds log nothing: their events are in the report of a failing seed. Seeds run on all cores."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

import pytest
from simulator.campaign import workers


@pytest.fixture(autouse=True)
def _quiet_logs() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="session")
def pool() -> Iterator[ProcessPoolExecutor]:
    """A process for each core, for all simulations of the run."""
    with workers() as pool:
        yield pool
