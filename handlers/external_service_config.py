"""The configuration of `call_external_service`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    StringConstraints,
    field_validator,
    model_validator,
)

from .http_request import parse_url

URL_CHARACTERS_MAX = 8_192
RESPONSE_BYTES_DEFAULT = 1_048_576
RESPONSE_BYTES_MAX = 4_194_304
REDIRECTS_DEFAULT = 3
REDIRECTS_MAX = 5

_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")

# Control characters but the tab, and lone surrogates, which UTF-8 cannot hold.
_NOT_SENDABLE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")

# The HTTP client writes these itself, to fit what it sends.
_CLIENT_HEADERS = frozenset(
    {"connection", "content-length", "expect", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
)

Scalar = StrictStr | StrictBool | StrictInt | StrictFloat
StatusCode = Annotated[StrictInt, Field(ge=100, le=599)]
StatusPattern = Annotated[StrictStr, StringConstraints(pattern=r"^[1-5]([0-9]{2}|[xX]{2})$", to_lower=True)]


def scalar_text(value: str | bool | int | float) -> str:
    """Return a JSON scalar as it stands in a query or a header: `true`, `1.5`, text as it is."""
    return value if isinstance(value, str) else json.dumps(value)


class ExternalServiceConfig(BaseModel):
    """Which request is sent, and which answers count as success."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = Field(max_length=URL_CHARACTERS_MAX, description="An absolute http or https URL.")
    method: str = Field("GET", description="The HTTP method, in any case.")
    headers: dict[str, Scalar] = Field({}, description="Request headers.")
    query: dict[str, Scalar | list[Scalar] | None] = Field(
        {}, description="Added to the URL's query; null leaves one out, a list repeats it."
    )
    json_body: Any = Field(None, alias="json", description="Any JSON value, sent as the request's body.")
    body: str | None = Field(None, description="Text, sent as the request's body in UTF-8.")
    timeout_seconds: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="For the whole call with its redirects. Without it, the attempt's timeout applies.",
    )
    expected_statuses: list[StatusCode | StatusPattern] = Field(
        ["2xx"],
        min_length=1,
        description="Statuses (204) and classes of them (2xx) that count as success.",
    )
    max_response_bytes: int = Field(
        RESPONSE_BYTES_DEFAULT,
        ge=1,
        le=RESPONSE_BYTES_MAX,
        description="The largest body accepted, after decompression.",
    )
    max_redirects: int = Field(
        REDIRECTS_DEFAULT, ge=0, le=REDIRECTS_MAX, description="How many redirects are followed."
    )

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        parse_url(url)
        return url

    @field_validator("method")
    @classmethod
    def _check_method(cls, method: str) -> str:
        if not _TOKEN.fullmatch(method) or method.upper() == "CONNECT":
            raise ValueError(f"{method!r} is not a method that can be sent")
        return method.upper()

    @field_validator("headers")
    @classmethod
    def _check_headers(cls, headers: Mapping[str, Scalar]) -> Mapping[str, Scalar]:
        seen: set[str] = set()
        for name, value in headers.items():
            key = name.lower()
            if not _TOKEN.fullmatch(name):
                raise ValueError(f"{name!r} is not a header name")
            if key in _CLIENT_HEADERS:
                raise ValueError(f"{name!r} is set by the HTTP client itself")
            if key in seen:
                raise ValueError(f"{name!r} is given twice")
            if _NOT_SENDABLE.search(scalar_text(value)):
                raise ValueError(f"the value of {name!r} holds a character that cannot be sent")
            seen.add(key)
        return headers

    @model_validator(mode="after")
    def _check_body(self) -> Self:
        if self.sends_json and self.body is not None:
            raise ValueError("give 'json' or 'body', not both")
        return self

    @property
    def sends_json(self) -> bool:
        """Say whether `json` was given; null is a JSON value too."""
        return "json_body" in self.model_fields_set

    def expects(self, status: int) -> bool:
        """Say whether an answer with this status counts as success."""
        forms = (status, str(status), f"{status // 100}xx")
        return any(form in self.expected_statuses for form in forms)
