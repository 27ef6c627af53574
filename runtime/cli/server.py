"""The server that a command means: by its options, else by the environment, else this machine's."""

from __future__ import annotations

import argparse
import ipaddress
from pathlib import Path
from urllib.parse import quote, urlsplit

from ...config.client import DEFAULT_URL, client_settings
from ..clock import SystemClock, block
from .errors import UsageError, report
from .http_client import ATTEMPTS, Connection, HttpClient

MAX_KEY_CHARACTERS = 4096


def server_of(options: argparse.Namespace, *, attempts: int = ATTEMPTS) -> HttpClient:
    """A client of the server meant. Raises `UsageError` for an address or a key that cannot be one."""
    url = server_url(options) or DEFAULT_URL
    api_key = _api_key(options)
    client = HttpClient(Connection(url, api_key, SystemClock(), block), attempts=attempts)
    if api_key is not None and _sent_in_the_open(url):
        report(f"warning: the API key goes to {url} in the open; use https")
    return client


def server_url(options: argparse.Namespace) -> str | None:
    """The server's address if one was given, by option or environment."""
    return options.url or client_settings().url


def in_path(name: str) -> str:
    """A name or an id as one part of a path."""
    return quote(name, safe="", errors="surrogatepass")


def _api_key(options: argparse.Namespace) -> str | None:
    file: Path | None = options.api_key_file
    if file is None:
        source, key = "WORKFLOW_ENGINE_API_KEY", client_settings().api_key
        if key is None:
            return None
    else:
        source = str(file)
        try:
            with file.open(encoding="utf-8") as lines:
                key = lines.read(MAX_KEY_CHARACTERS + 2)
        except OSError as error:
            raise UsageError(f"cannot read {file}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise UsageError(f"{file} holds no API key: it is not text") from None
    key = key.strip()
    if not key or len(key) > MAX_KEY_CHARACTERS or not key.isascii() or not key.isprintable() or " " in key:
        raise UsageError(f"{source} holds no API key: one is a word such as wfe_...")
    return key


def _sent_in_the_open(url: str) -> bool:
    address = urlsplit(url)
    host = address.hostname or ""
    if address.scheme == "https" or host == "localhost":
        return False
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return True
