"""Variables that look like a setting of ours and are none: most often a slip of the pen.

Much of the environment is others'. What is known to be theirs is let pass, and where a prefix is used by many,
only what is nearly one of our names is taken for one.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from .families import DEFAULT, FAMILIES, suffix_of
from .settings import GROUPS

_NAMES = [name.upper() for group in GROUPS for name in group.model_fields]
_FAMILY_NAMES = [family.prefix + suffix for family in FAMILIES for suffix in family.defaults]
_OWN_PREFIXES = (
    "API_",
    "IDEMPOTENCY_",
    "LLM_",
    "ORCHESTRATOR_",
    "POSTGRES_",
    "REDIS_",
    "RETENTION_",
    "RETRY_",
    "SQLITE_",
    "WORKER_",
)
_SHARED_PREFIXES = (
    "DEMO_",
    "FAILPOINT",
    "HANDLER_",
    "HEALTH_",
    "HTTP_",
    "LOG_",
    "MAX_",
    "PARTITION",
    "PLUGINS_",
    "REPLICA_",
    "RUNTIME_",
    "SECRETS_",
    "SKIP_",
    "STALE_",
    "UNKNOWN_",
)
_NEAR = 0.7
_VERY_NEAR = 0.8

# Of the images and libraries of PostgreSQL, Redis and SQLite, and what everybody calls the address and key of some API.
_OTHERS = re.compile(
    "API_(BASE_URL|KEY|SECRET|TOKEN|URL)|HTTP_PROXY"
    "|POSTGRES_(DB|HOST_AUTH_METHOD|INITDB_ARGS|INITDB_WALDIR|(DB|INITDB_ARGS|PASSWORD|USER)_FILE)"
    "|REDIS_(DOWNLOAD_SHA|DOWNLOAD_URL|VERSION)|SQLITE_(HISTORY|TMPDIR)"
)
# What Kubernetes and Docker set for the services and links beside a container: REDIS_SERVICE_HOST,
# REDIS_PORT_6379_TCP_ADDR, REDIS_ENV_VERSION, and REDIS_MASTER_PORT=tcp://10.0.0.1:6379.
_LINK_NAME = re.compile(r"\w+_(SERVICE_(HOST|PORT)(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?|ENV_\w+)")
_LINK_VALUE = re.compile(r"(tcp|udp|sctp)://|(/[\w.-]+)+/redis$")


def unknown_variables(environment: Mapping[str, str]) -> Iterator[str]:
    """A line for each variable (names in upper case) that looks like a setting, with the nearest name."""
    known = {*_NAMES, *(family.field.upper() for family in FAMILIES)}
    for name, text in environment.items():
        if name in known or name.startswith(tuple(family.prefix for family in FAMILIES)):
            continue
        if _is_of_others(name, text):
            continue
        if name.startswith(_OWN_PREFIXES):
            yield f"{name} is no setting{_did_you_mean(name, [*_NAMES, *_FAMILY_NAMES], _NEAR)}"
        elif name.startswith(_SHARED_PREFIXES):
            meant = _did_you_mean(name, [*_NAMES, *_FAMILY_NAMES], _VERY_NEAR)
            if meant:
                yield f"{name} is no setting{meant}"


def unknown_handlers(environment: Mapping[str, str], handlers: Iterable[str]) -> Iterator[str]:
    """A line for each variable (names in upper case) that is named after a handler which is not installed."""
    suffixes = [*map(suffix_of, handlers), DEFAULT]
    for family in FAMILIES:
        names = [family.prefix + suffix for suffix in suffixes]
        for name, _ in family.members(environment):
            if name not in names:
                yield f"{name} names no handler that is installed{_did_you_mean(name, names, _VERY_NEAR)}"


def _is_of_others(name: str, text: str) -> bool:
    if _OTHERS.fullmatch(name) or _LINK_NAME.fullmatch(name):
        return True
    return name.endswith(("_PORT", "_NAME")) and _LINK_VALUE.match(text) is not None


def _did_you_mean(name: str, names: Sequence[str], cutoff: float) -> str:
    nearest = difflib.get_close_matches(name, names, n=1, cutoff=cutoff)
    return f"; did you mean {nearest[0]}?" if nearest else ""
