"""Which addresses are refused, whichever way they are written."""

from __future__ import annotations

import ipaddress
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow_engine.plugins import PermanentError
from workflow_engine.runtime.worker.egress import AddressRefused, is_refused

EMBEDDINGS = ["::ffff:0:0", "::ffff:0:0:0", "64:ff9b::", "::"]


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "64:ff9b::8.8.8.8"])
def test_public_addresses_are_allowed(address: str) -> None:
    assert is_refused(address, allow_private=False) is None
    assert is_refused(address, allow_private=True) is None


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.255.255.254",
        "::1",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "192.0.0.8",
        "192.0.2.1",
        "198.18.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "0.0.0.1",
        "fc00::1",
        "fd12:3456::1",
        "fec0::1",
        "2001:db8::1",
        "2001:0:1:2::",
        "64:ff9b:1::8.8.8.8",
        "4000::1",
        "100::1",
    ],
)
def test_addresses_that_are_not_public(address: str) -> None:
    reason = is_refused(address, allow_private=False)
    assert reason is not None
    assert "HTTP_ALLOW_PRIVATE" in reason
    assert is_refused(address, allow_private=True) is None


@pytest.mark.parametrize("allow_private", [True, False])
@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("169.254.169.254", "a link-local address"),
        ("169.254.0.1", "a link-local address"),
        ("fe80::1", "a link-local address"),
        ("febf::1%eth0", "a link-local address"),
        ("64:ff9b:1::169.254.169.254", "a link-local address"),
        ("2002:a9fe:a9fe::1", "a link-local address"),
        ("2001:0:1:2:0:0:5601:5601", "a link-local address"),  # Teredo keeps the client's address inverted
        ("0.0.0.0", "the unspecified address"),
        ("::", "the unspecified address"),
        ("224.0.0.1", "a multicast address"),
        ("ff02::1", "a multicast address"),
        ("100.100.100.200", "a cloud's metadata service"),
        ("168.63.129.16", "a cloud's metadata service"),
        ("fd00:ec2::254", "a cloud's metadata service"),
        ("fd00:ec2::254%1", "a cloud's metadata service"),
        ("2130706433", "not a numeric IP address"),
        ("0x7f.1", "not a numeric IP address"),
        ("0177.0.0.1", "not a numeric IP address"),
        ("localhost", "not a numeric IP address"),
        ("", "not a numeric IP address"),
    ],
)
def test_never_allowed(address: str, reason: str, allow_private: bool) -> None:
    assert is_refused(address, allow_private) == reason


@given(st.ip_addresses(v=4), st.sampled_from(EMBEDDINGS), st.booleans())
def test_ipv4_inside_ipv6_is_judged_as_what_it_reaches(
    address: ipaddress.IPv4Address, embedding: str, allow_private: bool
) -> None:
    embedded = ipaddress.IPv6Address(int(ipaddress.IPv6Address(embedding)) | int(address))
    if int(embedded) <= 1:
        return  # `::` and `::1` are addresses in their own right
    assert is_refused(str(embedded), allow_private) == is_refused(str(address), allow_private)


@given(st.ip_addresses(v=4), st.booleans())
def test_6to4_is_judged_as_what_it_reaches(address: ipaddress.IPv4Address, allow_private: bool) -> None:
    outer = ipaddress.IPv6Address((0x2002 << 112) | (int(address) << 80) | 1)
    inner = is_refused(str(address), allow_private)
    assert is_refused(str(outer), allow_private) == inner


@given(st.ip_addresses())
def test_allowing_private_addresses_refuses_nothing_more(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    if is_refused(str(address), allow_private=False) is None:
        assert is_refused(str(address), allow_private=True) is None


@given(st.ip_addresses(v=6))
def test_public_ipv6_is_global_unicast(address: ipaddress.IPv6Address) -> None:
    if is_refused(str(address), allow_private=False) is None:
        assert address in ipaddress.IPv6Network("2000::/3") or address in ipaddress.IPv6Network("::/1")


def test_a_refusal_is_a_permanent_oserror() -> None:
    refusal = AddressRefused("127.0.0.1", "a loopback address")
    assert isinstance(refusal, PermanentError)
    assert isinstance(refusal, OSError)
    assert refusal.error_type == "address_refused"
    assert str(refusal) == refusal.strerror == "connections to 127.0.0.1 are refused: a loopback address"
    assert refusal.errno is None


def test_importing_it_does_not_import_aiohttp() -> None:
    program = "import sys, workflow_engine.runtime.worker.egress; sys.exit('aiohttp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
