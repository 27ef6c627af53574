"""REDIS_URL and POSTGRES_URL: what they may be, and the settings that they stand for.

What a URL says stands for the setting of that part; what it leaves out, the part's own setting says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from pydantic import SecretStr

REDIS_FORM = "redis://[user][:password]@host:port/db, or rediss:// for TLS"
POSTGRES_FORM = "postgresql://user:password@host:port/database, with ?sslmode=... for TLS"
HTTP_FORM = "a URL that begins with http:// or https://"

SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_REDIS_TLS_OPTIONS = ("ssl_ca_certs", "ssl_cert_reqs", "ssl_certfile", "ssl_check_hostname", "ssl_keyfile")

_SECRET_PARAMETER = re.compile(r"([?&][^=&]*(?:password|secret|token|key)[^=&]*=)[^&]*", re.IGNORECASE)
_USER_INFORMATION = re.compile(r"//.*@", re.DOTALL)

MASK = "********"


def mask_url(url: str) -> str:
    """The URL without what may be secret: the part before the host, and parameters that sound like it."""
    return _SECRET_PARAMETER.sub(rf"\g<1>{MASK}", _USER_INFORMATION.sub(f"//{MASK}@", url))


def check_http_url(url: str) -> str:
    """The URL itself. Raises `ValueError` when it is none of HTTP."""
    parts = _split(url, "http", "https")
    if not parts.hostname:
        raise ValueError("it names no host")
    return url


def redis_parts(url: str) -> dict[str, Any]:
    """The settings that a REDIS_URL stands for. Raises `ValueError`, which quotes nothing secret."""
    parts = _split(url, "redis", "rediss")
    if not parts.hostname:
        raise ValueError("it names no host")
    for name, _ in parse_qsl(parts.query, keep_blank_values=True):
        if name not in _REDIS_TLS_OPTIONS:
            raise ValueError(f"it has an unknown parameter; known are {', '.join(_REDIS_TLS_OPTIONS)}")
        if parts.scheme != "rediss":
            raise ValueError(f"{name} needs rediss://")
    database = parts.path.strip("/")
    if database and not re.fullmatch(r"\d{1,6}", database, re.ASCII):
        raise ValueError("behind the host stands what is no number of a database")
    return _said(
        redis_host=parts.hostname,
        redis_port=parts.port,
        redis_password=_secret(parts.password),
        redis_db=int(database) if database else None,
    )


def postgres_parts(url: str) -> dict[str, Any]:
    """The settings that a POSTGRES_URL stands for. Raises `ValueError`, which quotes nothing secret."""
    parts = _split(url, "postgresql", "postgres")
    parameters = dict(parse_qsl(parts.query, keep_blank_values=True))
    if parameters.get("sslmode", "prefer") not in SSL_MODES:
        raise ValueError(f"its sslmode is none of {', '.join(SSL_MODES)}")
    for name in ("port", "user", "password", "dbname"):
        if name in parameters:
            raise ValueError(f"its {name} belongs in front of the question mark")
    # A socket's folder can only stand behind it.
    return _said(
        postgres_host=parts.hostname or parameters.get("host"),
        postgres_port=parts.port,
        postgres_user=parts.username and unquote(parts.username),
        postgres_password=_secret(parts.password),
        postgres_database=unquote(parts.path.strip("/")) or None,
    )


PARTS_OF: Mapping[str, Callable[[str], dict[str, Any]]] = {"redis_url": redis_parts, "postgres_url": postgres_parts}


def _split(url: str, *schemes: str) -> SplitResult:
    """The parts of a URL of one host, of one of the schemes."""
    try:
        parts = urlsplit(url)
    except ValueError:
        # Its message may quote the password.
        raise ValueError("its host cannot be one") from None
    if parts.scheme not in schemes or not url.lower().startswith(f"{parts.scheme}://"):
        raise ValueError(f"it does not begin with {' or '.join(f'{scheme}://' for scheme in schemes)}")
    if "," in parts.netloc.rpartition("@")[2]:
        raise ValueError("it names several hosts; name one")
    try:
        free = parts.port == 0
    except ValueError:
        raise ValueError("its port is no number from 1 to 65535 (in a password, write @ as %40, / as %2F)") from None
    if free:
        raise ValueError("its port is 0")
    if parts.fragment:
        raise ValueError("it has a part behind a # (in a password, write # as %23)")
    return parts


def _secret(text: str | None) -> SecretStr | None:
    return SecretStr(unquote(text)) if text else None


def _said(**parts: Any) -> dict[str, Any]:
    return {name: value for name, value in parts.items() if value is not None}
