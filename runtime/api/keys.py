"""API keys: made, checked, revoked.

A key is 32 random bytes, so a plain SHA-256 of it is as good as any slow hash, and only that is stored.
What the store says about a key is believed for a few seconds: a key that is revoked in another process
ends then; one that is revoked here ends at once.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Sequence

from ..clock import Clock, random_bytes
from ..ports import KeyRecord, KeyStore
from .errors import KeyNotFound, Unauthenticated
from .routing import Principal, Scope

KEY_PREFIX = "wfe_"
KEY_BYTES = 32
MAX_KEY_CHARACTERS = 128
BELIEVED_SECONDS = 5.0
MAX_BELIEVED_KEYS = 10_000


def digest_of(text: str) -> str:
    """What is stored of a key's text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class Keys:
    """The API keys of a store."""

    def __init__(self, store: KeyStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._believed: OrderedDict[str, tuple[KeyRecord, float]] = OrderedDict()
        self._revocations = 0

    async def create(self, name: str, scope: Scope, expires_at: int | None) -> tuple[str, KeyRecord]:
        """A new key: its text, which nobody can look up later, and its record. `expires_at` in epoch milliseconds."""
        text = KEY_PREFIX + base64.urlsafe_b64encode(random_bytes(KEY_BYTES)).rstrip(b"=").decode()
        record = KeyRecord(
            self._clock.new_id(), name, digest_of(text), (scope.value,), self._clock.now(), expires_at, None
        )
        await self._store.add_key(record)
        return text, record

    async def list(self) -> Sequence[KeyRecord]:
        """Every key, oldest first, expired and revoked ones too."""
        return await self._store.list_keys()

    async def revoke(self, key_id: str) -> None:
        """End a key. Raises `KeyNotFound` when there is none with this id that is not revoked."""
        revoked = await self._store.revoke_key(key_id, self._clock.now())
        self._revocations += 1
        for digest in [digest for digest, (record, _) in self._believed.items() if record.key_id == key_id]:
            del self._believed[digest]
        if not revoked:
            raise KeyNotFound(f"there is no key with the id {key_id[:100]!r} that could be revoked")

    async def authenticate(self, text: str) -> Principal:
        """Whose key this is. Raises `Unauthenticated` saying why it is none's."""
        digest = digest_of(text)
        record = await self._find(digest) if len(text) <= MAX_KEY_CHARACTERS else None
        if record is None or not hmac.compare_digest(record.digest, digest):
            raise Unauthenticated("this API key is not known", key_was_given=True)
        if record.revoked_at is not None:
            raise Unauthenticated("this API key was revoked", key_was_given=True)
        if record.expires_at is not None and record.expires_at <= self._clock.now():
            raise Unauthenticated("this API key has expired", key_was_given=True)
        return Principal(record.key_id, scope_of(record))

    async def _find(self, digest: str) -> KeyRecord | None:
        now = self._clock.monotonic()
        believed = self._believed.get(digest)
        if believed is not None and now - believed[1] < BELIEVED_SECONDS:
            return believed[0]
        revocations = self._revocations
        record = await self._store.find_key(digest)
        self._believed.pop(digest, None)
        # What is not known is not remembered: otherwise whoever guesses would push the others out.
        # Nor is what was read before a revocation, which may have been this key's.
        if record is not None and revocations == self._revocations:
            self._believed[digest] = (record, now)
            if len(self._believed) > MAX_BELIEVED_KEYS:
                self._believed.popitem(last=False)
        return record


def is_usable(record: KeyRecord, now: int) -> bool:
    """Whether a key is neither revoked nor expired at a moment in epoch milliseconds."""
    return record.revoked_at is None and (record.expires_at is None or record.expires_at > now)


def scope_of(record: KeyRecord) -> Scope:
    """The widest scope of a key."""
    return max((Scope(name) for name in record.scopes), key=list(Scope).index, default=Scope.PUBLIC)
