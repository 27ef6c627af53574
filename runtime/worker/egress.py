"""The way out: the HTTP session that handlers share, and the addresses that it refuses to connect to.

Workflows say which URLs are called, and their authors may be strangers to the network that the
engine stands in. So every connection is checked where it is made, on the address itself: whatever a
URL looks like, whatever a redirect or a changing DNS answer says, it ends in an address.

Two places ask `is_refused`. The guard proper is the connector's socket factory: nothing is connected
without it. The resolver asks before that, only so that a name with several addresses gives one clear
error rather than a list of failed connections.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING, Any

from ...plugins import PermanentError

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp import ClientSession, ThreadedResolver
    from aiohttp.abc import ResolveResult

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

CONNECT_TIMEOUT_SECONDS = 30.0
USER_AGENT = "workflow-engine"

MEND = "set HTTP_ALLOW_PRIVATE=true to allow addresses that are not public"

# Where clouds serve a machine's credentials, when it is no link-local address: no setting opens these.
METADATA_SERVICES = frozenset(
    ipaddress.ip_address(address)
    for address in (
        "100.100.100.200",  # Alibaba Cloud
        "168.63.129.16",  # Azure; looks public
        "192.0.0.192",  # Oracle Cloud
        "fd00:ec2::254",  # AWS
        "fd20:ce::254",  # Google Cloud
    )
)

# Public IPv6 addresses are found here and nowhere else. Python 3.11's `is_global` is more generous, and
# takes a part of the IPv4 network below for public.
PUBLIC_IPV6 = ipaddress.IPv6Network("2000::/3")
NOT_PUBLIC_IPV4 = ipaddress.IPv4Network("192.0.0.0/24")

# IPv6 addresses that end in the IPv4 address which is really reached.
IPV4_IN_LAST_32_BITS = (
    ipaddress.IPv6Network("::ffff:0:0/96"),  # IPv4-mapped
    ipaddress.IPv6Network("::ffff:0:0:0/96"),  # IPv4-translated
    ipaddress.IPv6Network("64:ff9b::/96"),  # NAT64
    ipaddress.IPv6Network("64:ff9b:1::/48"),  # NAT64 for local use
)
IPV4_COMPATIBLE = ipaddress.IPv6Network("::/96")

# Not public whatever they lead to: who answers there is decided by the network one is in.
LOCAL_TUNNELS = (ipaddress.IPv6Network("64:ff9b:1::/48"), ipaddress.IPv6Network("2001::/32"))


class AddressRefused(PermanentError, OSError):
    """No connection is made to this address, now or later.

    An `OSError` too, so that aiohttp reports it as any connection that could not be made; it is then
    the `os_error` (and the `__cause__`) of the `ClientConnectorError`, and tells itself apart by
    being a `PermanentError`.
    """

    def __init__(self, address: str, reason: str) -> None:
        message = f"connections to {address} are refused: {reason}"
        super().__init__(message, error_type="address_refused")
        # What aiohttp shows of an OSError. `errno` stays None: no system call failed.
        self.strerror = message
        self.address = address
        self.reason = reason


def is_refused(address: str, allow_private: bool) -> str | None:
    """Say why no connection may be made to `address`; None if it may.

    `address` is numeric, as a socket takes it; whatever is not is refused. Link-local, multicast and
    unspecified addresses and the metadata services of clouds are always refused, all others that are
    not public unless `allow_private`. IPv4 addresses inside IPv6 ones are judged as what they reach.
    """
    try:
        # A zone (`fe80::1%eth0`) changes nothing about what an address is, but it makes it unequal.
        given = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return "not a numeric IP address"
    reached = _reached(given)
    reason = _never_allowed(reached)
    if reason is not None or allow_private:
        return reason
    if _is_public(reached) and not any(given in network for network in LOCAL_TUNNELS):
        return None
    return f"{'a loopback' if reached.is_loopback else 'not a public'} address; {MEND}"


def _reached(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 address leads to, or the address itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if any(address in network for network in IPV4_IN_LAST_32_BITS):
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    if address in IPV4_COMPATIBLE and not (address.is_unspecified or address.is_loopback):
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    return address


def _never_allowed(address: Address) -> str | None:
    if address in METADATA_SERVICES:
        return "a cloud's metadata service"
    if address.is_link_local:
        return "a link-local address"
    if address.is_multicast:
        return "a multicast address"
    if address.is_unspecified:
        return "the unspecified address"
    return None


def _is_public(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv4Address):
        return address.is_global and address not in NOT_PUBLIC_IPV4
    return address.is_global and address in PUBLIC_IPV6


def create_session(*, allow_private: bool) -> ClientSession:
    """Return a new session that connects to allowed addresses only (see `is_refused`).

    No cookies, no proxies or credentials from the environment, no limit on the number of connections
    (the worker's slots are one) and no total timeout: the attempt has one. Connecting may take
    `CONNECT_TIMEOUT_SECONDS`. Call it inside the event loop, and close the session there.
    """
    # Imported here: a process whose workflows call nobody starts faster without.
    import aiohttp

    connector = aiohttp.TCPConnector(
        resolver=_checked_resolver(allow_private),
        socket_factory=_checked_sockets(allow_private),
        use_dns_cache=False,
        limit=0,
    )
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": USER_AGENT},
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_SECONDS),
        trust_env=False,
    )


class SharedSession:
    """The one session of a process: made when it is first asked for."""

    def __init__(self, *, allow_private: bool) -> None:
        self._allow_private = allow_private
        self._session: ClientSession | None = None

    def get(self) -> ClientSession:
        """The session. Call it inside the event loop."""
        # Closed: by a handler that took it for its own.
        if self._session is None or self._session.closed:
            self._session = create_session(allow_private=self._allow_private)
        return self._session

    async def close(self) -> None:
        """Close it, if it was ever made."""
        if self._session is not None:
            await self._session.close()


def _checked_sockets(allow_private: bool) -> Callable[[tuple[Any, ...]], socket.socket]:
    """Return a socket factory that refuses to make a socket for a refused address."""

    def create(address_info: tuple[Any, ...]) -> socket.socket:
        family, kind, protocol, _, socket_address = address_info
        address = str(socket_address[0])
        reason = is_refused(address, allow_private)
        if reason is not None:
            raise AddressRefused(address, reason)
        return socket.socket(family, kind, protocol)

    return create


def _checked_resolver(allow_private: bool) -> ThreadedResolver:
    """Return a resolver that leaves out refused addresses, and fails if nothing else is left."""
    from aiohttp import ThreadedResolver

    class CheckedResolver(ThreadedResolver):
        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
        ) -> list[ResolveResult]:
            allowed: list[ResolveResult] = []
            failure: OSError = socket.gaierror(socket.EAI_NONAME, f"{host} has no address")
            for answer in await super().resolve(host, port, family):
                reason = is_refused(answer["host"], allow_private)
                if reason is None:
                    allowed.append(answer)
                else:
                    failure = AddressRefused(f"{answer['host']} ({host})", reason)
            if not allowed:
                raise failure
            return allowed

    return CheckedResolver()
