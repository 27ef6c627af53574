"""`llm_service`: one chat completion from a service that speaks OpenAI's protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from ..plugins import Handler, NodeContext, PermanentError, handler
from .http_body import encode_json, excerpt, parse_json, read_excerpt, read_limited
from .http_failures import network_failures, status_failure
from .http_request import Request, parse_url

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession

ANSWER_BYTES_MAX = 4_194_304


class LlmServiceConfig(BaseModel):
    """What the model is asked."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: str = Field(min_length=1, description="The user's message.")
    model: str = Field("gpt-4", min_length=1, description="The model's name, as the service calls it.")
    system: str | None = Field(None, description="Instructions that precede the prompt.")
    temperature: float | None = Field(None, ge=0, le=2, allow_inf_nan=False, description="0 is the most predictable.")
    max_tokens: int | None = Field(None, gt=0, description="The most tokens that the answer may have.")
    response_format: dict[str, Any] | None = Field(
        None, description="Passed on to the service as it is, for example {'type': 'json_object'}."
    )


def llm_service(base_url: str | None, api_key: str | None) -> Handler:
    """Return the handler that asks the service at `base_url` (`https://api.openai.com/v1`).

    `api_key` is sent as a bearer token if there is one, and appears in no error message.
    """
    key = (api_key or "").strip() or None

    @handler("llm_service", config=LlmServiceConfig)
    async def ask(config: LlmServiceConfig, context: NodeContext) -> Any:
        """Ask a language model and return its answer: `{model, response, usage, finish_reason}`."""
        request = _build_request(base_url, key, config, context.idempotency_key)
        with network_failures(str(request)):
            answer = await _exchange(context.http, request, key)
        return _output(answer, config, request, key)

    return ask


def _build_request(
    base_url: str | None, api_key: str | None, config: LlmServiceConfig, idempotency_key: str
) -> Request:
    if not base_url:
        raise PermanentError(
            "no language model is configured: set LLM_BASE_URL (or DEMO_MODE=true for canned answers)",
            error_type="llm_not_configured",
        )
    try:
        base = parse_url(base_url)
    except ValueError as error:
        raise PermanentError(f"LLM_BASE_URL {error}", error_type="invalid_url") from None
    try:
        body = encode_json(_payload(config))
    except ValueError as error:
        raise PermanentError(f"the request cannot be encoded: {error}", error_type="invalid_request") from None
    headers = {"Content-Type": "application/json", "Idempotency-Key": idempotency_key}
    if api_key is not None:
        headers["Authorization"] = f"Bearer {api_key}"
    # Gateways take parameters in the base URL's query, as in `?api-version=1`.
    url = (base / "chat" / "completions").with_query(base.query)
    return Request("POST", url, headers, body)


def _payload(config: LlmServiceConfig) -> dict[str, Any]:
    """Return the request's JSON; what was not configured is left to the service."""
    roles = (("system", config.system), ("user", config.prompt))
    messages = [{"role": role, "content": content} for role, content in roles if content is not None]
    options = {
        "temperature": config.temperature,
        "max_tokens": config.max_tokens,
        "response_format": config.response_format,
    }
    given = {name: value for name, value in options.items() if value is not None}
    return {"model": config.model, "messages": messages, **given}


async def _exchange(session: ClientSession, request: Request, api_key: str | None) -> bytes:
    async with session.request(
        request.method, request.url, headers=request.headers, data=request.body, allow_redirects=False
    ) as response:
        await _check_status(response, request, api_key)
        return await read_limited(response, ANSWER_BYTES_MAX)


async def _check_status(response: ClientResponse, request: Request, api_key: str | None) -> None:
    if response.status != 200:
        text = await read_excerpt(response, secret=api_key)
        raise status_failure(str(request), response.status, response.headers, text)


def _output(answer: bytes, config: LlmServiceConfig, request: Request, api_key: str | None) -> dict[str, Any]:
    """Return the handler's output; raises `PermanentError` (`llm_answer_invalid`) for another shape."""
    try:
        completion = parse_json(answer)
        choice = completion["choices"][0]
        response = choice["message"]["content"]
        if not isinstance(response, str):
            raise TypeError("the message has no text")
        return {
            "model": completion.get("model", config.model),
            "response": response,
            "usage": completion.get("usage"),
            "finish_reason": choice.get("finish_reason"),
        }
    except (ValueError, LookupError, TypeError, AttributeError):
        raise PermanentError(
            f"{request} answered with something that is no chat completion with text: "
            f"{excerpt(answer, secret=api_key)}",
            error_type="llm_answer_invalid",
        ) from None
