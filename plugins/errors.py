"""What a handler raises to say how its attempt ended.

Any other exception fails the attempt too; whether it is tried again is then decided by its type
(`runtime/worker/failure.py`). These two say it outright.
"""

from __future__ import annotations


class PermanentError(Exception):
    """The attempt failed and trying again cannot help.

    `error_type` is the stable, short name that users see in `error.type`.
    """

    def __init__(self, message: str, *, error_type: str = "PermanentError") -> None:
        super().__init__(message)
        self.error_type = error_type


class RetryAfter(Exception):
    """The attempt failed; it may be tried again, not before `seconds` (None: the usual backoff).

    `error_type` is the stable, short name that users see in `error.type`.
    """

    def __init__(self, message: str, *, seconds: float | None = None, error_type: str = "RetryAfter") -> None:
        super().__init__(message)
        self.seconds = seconds
        self.error_type = error_type
