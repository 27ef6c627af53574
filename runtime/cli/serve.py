"""`workflow-engine serve`: the engine, or the roles of it that this process has, until SIGTERM."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from ... import __version__
from ...config import load_settings
from ...observability.logs import configure_logging
from ..api.keys import is_usable
from ..errors import SetupError
from ..event_loop import run_to_end
from ..process import Runtime, running
from .api import api_runner
from .errors import FAILURE
from .startup import check_failpoints, warn_of_settings

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def serve(overrides: Mapping[str, Any]) -> int:
    """Serve until told to stop; returns the exit code. `overrides` are settings that go before the environment."""
    settings = load_settings(overrides)
    check_failpoints(settings)
    configure_logging(settings.log_level, settings.log_format)
    if settings.demo_mode and "worker" in settings.runtime_roles:
        log.warning("demo mode: call_external_service and llm_service are mocks")
    runtime = Runtime(settings)
    warn_of_settings(settings, runtime.catalogue)
    return run_to_end(_serve(runtime))


async def _serve(built: Runtime) -> int:
    built.watchdog.start()
    try:
        return await _serve_watched(built)
    finally:
        built.watchdog.stop()


async def _serve_watched(built: Runtime) -> int:
    stop = _stop_on_signals()
    async with running(lambda: built) as runtime:
        if runtime.has_role("api"):
            await _warn_of_keys(runtime)
        runner = await _listen(runtime)
        failed = asyncio.get_running_loop().create_task(runtime.failed())
        stopped = asyncio.get_running_loop().create_task(stop.wait())
        await asyncio.wait([failed, stopped], return_when=asyncio.FIRST_COMPLETED)
        runtime.engine.stop_accepting()
        if runner is not None:
            await runner.cleanup()
        code = 0
        if failed.done():
            # `stop` reports what ended the owner; asking for it here says that it is not lost.
            failed.exception()
            code = FAILURE
        for task in (failed, stopped):
            task.cancel()
    log.info("stopped")
    return code


async def _listen(runtime: Runtime) -> web.AppRunner | None:
    """Serve the API; health alone without the role `api`, and nothing when no port is given for that."""
    settings = runtime.settings
    serves_api = runtime.has_role("api")
    variable, port = settings.own_port
    roles = ",".join(settings.runtime_roles)
    begun = f"workflow-engine {__version__} " if serves_api else f"workflow-engine {__version__} as {roles} "
    if port is None:
        print(f"{begun}started", flush=True)
        return None
    runner = api_runner(runtime)
    await runner.setup()
    try:
        await web.TCPSite(runner, settings.api_host, port).start()
    except (OSError, UnicodeError) as error:
        # A UnicodeError comes from a host name that cannot be one.
        reason = getattr(error, "strerror", None) or error
        raise SetupError(
            f"cannot listen on {settings.api_host}:{port}: {reason}; set API_HOST and {variable}"
        ) from error
    address: Any = runner.addresses[0]
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    url = f"http://{host}:{address[1]}"
    print(f"{begun}listening on {url}", flush=True)
    if serves_api:
        print(f"API documentation: {url}/docs", flush=True)
    return runner


async def _warn_of_keys(runtime: Runtime) -> None:
    """Say so when nobody can use the API, or everybody can who reaches it."""
    settings = runtime.settings
    if not settings.keys_required:
        if not settings.listens_to_this_machine_only:
            log.warning("no API keys are asked for: everybody who reaches %s may do everything", settings.api_host)
        return
    now = runtime.clock.now()
    if not any(is_usable(record, now) for record in await runtime.store.list_keys()):
        log.warning(
            "requests need an API key, and there is none: stop this process, run `workflow-engine keys create "
            "--name admin --scope admin` with the same settings, and start it again"
        )


def _stop_on_signals() -> asyncio.Event:
    """Set at the first signal; a second one ends the process at once, which loses nothing but time."""
    stop = asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():
            os._exit(FAILURE)
        stop.set()

    for number in SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    return stop
