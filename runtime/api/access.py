"""Who may call: API keys, pages of other sites, names that are not ours."""

from __future__ import annotations

import ipaddress
import re
from types import MappingProxyType

from aiohttp import web

from ...plugins.values import ApiRequest
from .errors import CrossSiteRequest, Forbidden, HostNotAllowed, Unauthenticated
from .keys import Keys
from .options import Authenticate
from .routing import Principal, Scope

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
EVERYBODY = Principal("everybody", Scope.ADMIN)
NOBODY = Principal("nobody", Scope.PUBLIC)

_HOST_AND_PORT = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]]*)(:[0-9]*)?")


class Access:
    """Decides about each request. `keys` is None when no key is needed: then everybody may do everything.

    `own_host` is the address that the API listens on, when it is a loopback address and no key is needed:
    a page in a browser on this machine could otherwise have its own name resolve to this address and speak
    to the API as if it were its own site (DNS rebinding). So only names of this machine are answered.

    `authenticate` asks plugins who sends a request; they are asked before API keys are looked at.
    """

    def __init__(self, keys: Keys | None, own_host: str | None, authenticate: Authenticate | None = None) -> None:
        self._keys = keys
        self._authenticate = authenticate
        self._own_host = own_host
        self._known_hosts: set[str] = set()

    def check_origin(self, request: web.Request) -> None:
        """Raise `CrossSiteRequest` or `HostNotAllowed` for a request that a page of another site has made."""
        headers = request.headers
        if request.method not in SAFE_METHODS and headers.get("Sec-Fetch-Site") == "cross-site":
            raise CrossSiteRequest("a browser sent this for a page of another site")
        if self._own_host is not None:
            # A browser always names a host; who names none is none.
            host = headers.get("Host")
            if host is not None and host not in self._known_hosts:
                self._check_host(host, self._own_host)

    def _check_host(self, host: str, own_host: str) -> None:
        match = _HOST_AND_PORT.fullmatch(host)
        name = match[1].strip("[]").lower() if match is not None else ""
        if not _is_of_this_machine(name) and name != own_host.lower():
            raise HostNotAllowed(
                "without API keys only names of this machine are answered, such as localhost; "
                "set API_KEYS_REQUIRED=true to be reached by other names"
            )
        if len(self._known_hosts) < 100:
            self._known_hosts.add(host)

    async def admit(self, request: web.Request, needed: Scope) -> Principal:
        """Who calls a route that needs this scope. Raises `Unauthenticated`, `Forbidden`."""
        if self._keys is None:
            return EVERYBODY
        if needed is Scope.PUBLIC:
            return NOBODY
        if self._authenticate is not None:
            principal = await self._known_to_a_plugin(request, self._authenticate)
            if principal is not None:
                return _with_scope(principal, needed)
        text = _key_of(request)
        if text is None:
            raise Unauthenticated(
                "send an API key: 'Authorization: Bearer wfe_...' or 'X-API-Key: wfe_...'", key_was_given=False
            )
        return _with_scope(await self._keys.authenticate(text), needed)

    async def _known_to_a_plugin(self, request: web.Request, authenticate: Authenticate) -> Principal | None:
        headers: dict[str, str] = {}
        for name, value in request.headers.items():
            headers.setdefault(name.lower(), value)
        given = ApiRequest(
            method=request.method, path=request.path, headers=MappingProxyType(headers), remote=request.remote
        )
        caller = await authenticate(given)
        # Nobody's key is called so: what callers are told apart by stays apart.
        return None if caller is None else Principal(f"plugin:{caller.name}", Scope(caller.scope))


def _with_scope(principal: Principal, needed: Scope) -> Principal:
    if not principal.scope.includes(needed):
        raise Forbidden(needed, principal.scope)
    return principal


def _key_of(request: web.Request) -> str | None:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return token.strip()
    return request.headers.get("X-API-Key")


def _is_of_this_machine(name: str) -> bool:
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
