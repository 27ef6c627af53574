"""Everything that may befall processes, their servers and the network between, in an order that a seed draws."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from random import Random
from typing import Any

from places import Place, until_ended
from postgres_server import PostgresServer
from redis_server import RedisServer
from tcp_proxy import TcpProxy

Fault = Callable[[], Awaitable[None]]

LONGEST_PAUSE_SECONDS = 4.0
NETWORK_SECONDS = (0.5, 3.0)
AWAY_SECONDS = (0.0, 3.0)
DRAIN_SECONDS = 0.2
WIPES = 10
CUTS = 6
STILL_LEASES = (0.5, 1.5, 5.0)
START_SECONDS = 60.0


class Mayhem:
    """Faults in three lanes that run at the same time: of processes, of servers, of the network."""

    def __init__(
        self,
        places: Sequence[Place],
        *,
        redis: RedisServer,
        postgres: PostgresServer,
        surge: Fault,
        lease_seconds: float,
        seed: int,
    ) -> None:
        """`surge`: many times more requests than are served, for a while."""
        self.happened: Counter[str] = Counter()
        """How often there was each fault."""
        self._places = places
        self._redis = redis
        self._postgres = postgres
        self._surge = surge
        self._lease_seconds = lease_seconds
        self._seed = seed
        self._random = Random(seed)
        self._lanes = [self._of_processes(), self._of_servers(), self._of_the_network()]
        self._rounds = [0] * len(self._lanes)
        self._enough = False

    @property
    def kinds(self) -> set[str]:
        """The names of all faults that there are."""
        return {name for lane in self._lanes for name, _ in lane}

    @property
    def has_had_all(self) -> bool:
        """Whether each of them has happened."""
        return all(self._rounds)

    def stop(self) -> None:
        """Begin nothing more."""
        self._enough = True

    async def run(self) -> None:
        """One fault after another in each lane, in a new order each round, until `stop`; then all is well again."""
        async with asyncio.TaskGroup() as tasks:
            for number, lane in enumerate(self._lanes):
                tasks.create_task(self._run_lane(number, lane, Random(f"{self._seed} {number}")))

    async def _run_lane(self, number: int, lane: Sequence[tuple[str, Fault]], random: Random) -> None:
        while True:
            for name, fault in random.sample(lane, len(lane)):
                if self._enough:
                    return
                await asyncio.sleep(random.uniform(0, LONGEST_PAUSE_SECONDS))
                await fault()
                self.happened[name] += 1
            self._rounds[number] += 1

    # --- processes ----------------------------------------------------------------------------------------

    def _of_processes(self) -> list[tuple[str, Fault]]:
        faults: list[tuple[str, Fault]] = [("rolling restart", self._restart_all), ("overload", self._surge)]
        for place in self._places:
            faults += [
                (f"kill -9 of {place.name}", partial(self._kill, place)),
                (f"SIGTERM of {place.name}", partial(self._end, place)),
                (f"SIGTERM and kill -9 of {place.name}", partial(self._end_and_kill, place)),
            ]
            faults += [
                (f"{place.name} stands still for {leases:g} leases", partial(self._stand_still, place, leases))
                for leases in STILL_LEASES
            ]
        return faults

    async def _kill(self, place: Place) -> None:
        server = await place.running()
        server.process.kill()
        await until_ended(server)

    async def _end(self, place: Place) -> None:
        server = await place.running()
        server.terminate()
        await until_ended(server)

    async def _end_and_kill(self, place: Place) -> None:
        server = await place.running()
        server.terminate()
        await asyncio.sleep(self._random.uniform(0, DRAIN_SECONDS))
        server.process.kill()
        await until_ended(server)

    async def _restart_all(self) -> None:
        for place in self._places:
            await self._end(place)
            await place.running()

    async def _stand_still(self, place: Place, leases: float) -> None:
        server = await place.running()
        server.pause()
        await asyncio.sleep(leases * self._lease_seconds)
        server.resume()

    # --- servers ------------------------------------------------------------------------------------------

    def _of_servers(self) -> list[tuple[str, Fault]]:
        return [
            ("Redis killed", self._kill_redis),
            ("Redis killed, and empty", self._lose_redis),
            ("Redis killed, and as it was long ago", self._set_redis_back),
            ("FLUSHALL", self._wipe_redis),
            ("PostgreSQL killed", self._kill_postgres),
            ("PostgreSQL killed while it recovers", self._kill_postgres_again),
            ("PostgreSQL killed while a process starts", self._kill_postgres_at_a_start),
        ]

    async def _away(self) -> None:
        await asyncio.sleep(self._random.uniform(*AWAY_SECONDS))

    async def _kill_redis(self) -> None:
        self._redis.kill()
        await self._away()
        await asyncio.to_thread(self._redis.start)

    async def _lose_redis(self) -> None:
        self._redis.kill()
        self._redis.replace_files()
        await self._away()
        await asyncio.to_thread(self._redis.start)

    async def _set_redis_back(self) -> None:
        copy = await asyncio.to_thread(self._redis.copy_files)
        await asyncio.sleep(2 * self._lease_seconds)
        self._redis.kill()
        self._redis.replace_files(copy)
        await asyncio.to_thread(self._redis.start)

    async def _wipe_redis(self) -> None:
        for _ in range(WIPES):
            await asyncio.to_thread(self._redis.ask, "FLUSHALL")
            await asyncio.sleep(self._random.uniform(0, 0.5))

    async def _kill_postgres(self) -> None:
        self._postgres.kill()
        await self._away()
        await self._start_postgres()

    async def _kill_postgres_again(self) -> None:
        self._postgres.kill()
        for _ in range(3):
            await asyncio.to_thread(self._postgres.begin)
            await asyncio.sleep(self._random.uniform(0.02, 0.3))
            self._postgres.kill()
        await self._start_postgres()

    async def _kill_postgres_at_a_start(self) -> None:
        place = self._random.choice(self._places)
        await self._kill(place)
        await asyncio.sleep(self._random.uniform(0.2, 1.5))
        await self._kill_postgres()

    async def _start_postgres(self) -> None:
        """Start it; what the killed one has left behind may be in its way for a moment."""
        async with asyncio.timeout(START_SECONDS):
            while True:
                try:
                    await asyncio.to_thread(self._postgres.start)
                    return
                except RuntimeError:
                    await asyncio.sleep(0.1)

    # --- network ------------------------------------------------------------------------------------------

    def _of_the_network(self) -> list[tuple[str, Fault]]:
        return [
            (f"{what} between {place.name} and {server}", partial(self._disturb, link, begin))
            for place in self._places
            for server, link in place.links.items()
            for what, begin in NETWORK.items()
        ]

    async def _disturb(self, link: TcpProxy, begin: Callable[[TcpProxy], None]) -> None:
        begin(link)
        await asyncio.sleep(self._random.uniform(*NETWORK_SECONDS))
        link.calm()


def _slow(link: TcpProxy) -> None:
    link.latency_seconds = 0.4


def _cut(link: TcpProxy) -> None:
    link.cut()


def _half_open(link: TcpProxy) -> None:
    link.ignore_new()
    link.cut()


def _answer_dropped(link: TcpProxy) -> None:
    for _ in range(CUTS):
        link.drop_answer(_anything)


def _anything(_data: bytes) -> bool:
    return True


NETWORK: dict[str, Callable[[TcpProxy], Any]] = {
    "latency": _slow,
    "a cut": _cut,
    "no connection": TcpProxy.refuse,
    "half-open connections": _half_open,
    "a black hole": TcpProxy.blackhole,
    "no requests": TcpProxy.hold_requests,
    "no answers": TcpProxy.hold_answers,
    "answers dropped": _answer_dropped,
}
