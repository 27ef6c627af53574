"""`llm_service` against servers that speak OpenAI's protocol."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from pydantic import SecretStr

from workflow_engine.handlers.llm_service import LlmServiceConfig
from workflow_engine.handlers.plugin import workflow_engine_handlers
from workflow_engine.plugins import NodeContext, PermanentError, RetryAfter

Make = Callable[..., Awaitable[Any]]

API_KEY = "sk-canary-0123456789"

# As api.openai.com answers.
COMPLETION: dict[str, Any] = {
    "id": "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT",
    "object": "chat.completion",
    "created": 1741569952,
    "model": "gpt-4-0613",
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "Hello! How can I assist you today?",
                "refusal": None,
                "annotations": [],
            },
            "logprobs": None,
            "finish_reason": "stop",
        }
    ],
    "usage": {
        "prompt_tokens": 19,
        "completion_tokens": 10,
        "total_tokens": 29,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
    },
    "service_tier": "default",
}


@pytest.fixture
def ask(make_context: Callable[..., NodeContext]) -> Make:
    """`await ask(base_url, prompt=...)`: the output of one attempt, with `API_KEY` as the key."""

    async def ask(base_url: object, *, api_key: object = API_KEY, allow_private: bool = True, **config: Any) -> Any:
        settings = {"llm_base_url": base_url, "llm_api_key": api_key}
        handlers = {handler.name: handler for handler in workflow_engine_handlers(settings)}
        model = LlmServiceConfig.model_validate({"prompt": "hello"} | config)
        return await handlers["llm_service"].run(model, make_context(allow_private=allow_private))

    return ask


@pytest.fixture
def requests_seen() -> list[dict[str, Any]]:
    """What `openai` was asked, in order."""
    return []


@pytest.fixture
async def openai(make_server: Make, requests_seen: list[dict[str, Any]]) -> Any:
    """A server that answers each request with `COMPLETION`."""

    async def answer(request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        body = json.loads(await request.read())
        requests_seen.append({"method": request.method, "path": request.raw_path, "headers": headers, "body": body})
        return web.json_response(COMPLETION)

    return await make_server(answer)


class TestRequest:
    async def test_smallest(self, ask: Make, openai: Any, requests_seen: list[dict[str, Any]]) -> None:
        await ask(openai.make_url("/v1"))
        (seen,) = requests_seen
        assert (seen["method"], seen["path"]) == ("POST", "/v1/chat/completions")
        assert seen["headers"]["authorization"] == f"Bearer {API_KEY}"
        assert seen["headers"]["content-type"] == "application/json"
        assert seen["headers"]["idempotency-key"] == "execution-1/fetch/2"
        assert seen["body"] == {"model": "gpt-4", "messages": [{"role": "user", "content": "hello"}]}

    async def test_largest(self, ask: Make, openai: Any, requests_seen: list[dict[str, Any]]) -> None:
        await ask(
            openai.make_url("/v1"),
            prompt="grüß",
            model="llama",
            system="be brief",
            temperature=0,
            max_tokens=7,
            response_format={"type": "json_object"},
        )
        assert requests_seen[0]["body"] == {
            "model": "llama",
            "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "grüß"}],
            "temperature": 0.0,
            "max_tokens": 7,
            "response_format": {"type": "json_object"},
        }

    @pytest.mark.parametrize(
        ("base", "path"),
        [
            ("/v1/", "/v1/chat/completions"),
            ("/", "/chat/completions"),
            (
                "/openai/deployments/gpt?api-version=1",
                "/openai/deployments/gpt/chat/completions?api-version=1",
            ),
        ],
    )
    async def test_base_urls(
        self, ask: Make, openai: Any, requests_seen: list[dict[str, Any]], base: str, path: str
    ) -> None:
        await ask(str(openai.make_url("/")).rstrip("/") + base)
        assert requests_seen[0]["path"] == path

    @pytest.mark.parametrize("api_key", [None, "", SecretStr("")])
    async def test_without_a_key(
        self, ask: Make, openai: Any, requests_seen: list[dict[str, Any]], api_key: object
    ) -> None:
        await ask(openai.make_url("/v1"), api_key=api_key)
        assert "authorization" not in requests_seen[0]["headers"]

    @pytest.mark.parametrize("api_key", [SecretStr(API_KEY), f" {API_KEY}\n"])
    async def test_keys_as_settings_bring_them(
        self, ask: Make, openai: Any, requests_seen: list[dict[str, Any]], api_key: object
    ) -> None:
        await ask(openai.make_url("/v1"), api_key=api_key)
        assert requests_seen[0]["headers"]["authorization"] == f"Bearer {API_KEY}"


class TestAnswer:
    async def test_output(self, ask: Make, openai: Any) -> None:
        assert await ask(openai.make_url("/v1")) == {
            "model": "gpt-4-0613",
            "response": "Hello! How can I assist you today?",
            "usage": COMPLETION["usage"],
            "finish_reason": "stop",
        }

    async def test_only_the_text_is_needed(self, ask: Make, make_server: Make) -> None:
        server = await make_server(text='{"choices": [{"message": {"content": ""}}]}')
        assert await ask(server.make_url("/v1"), model="small") == {
            "model": "small",
            "response": "",
            "usage": None,
            "finish_reason": None,
        }

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "<html>It works!</html>",
            "null",
            "[]",
            "{}",
            '{"choices": []}',
            '{"choices": {}}',
            '{"choices": [null]}',
            '{"choices": [{"message": {"content": null}, "finish_reason": "tool_calls"}]}',
            '{"choices": [{"message": {"content": "a"}}], "usage": NaN}',
            f'{{"error": {{"message": "bad key {API_KEY}"}}}}',
        ],
    )
    async def test_another_shape(self, ask: Make, make_server: Make, text: str) -> None:
        server = await make_server(text=text)
        with pytest.raises(PermanentError, match="no chat completion with text") as caught:
            await ask(server.make_url("/v1"))
        assert caught.value.error_type == "llm_answer_invalid"
        assert API_KEY not in str(caught.value)

    async def test_size_limit(self, ask: Make, make_server: Make) -> None:
        server = await make_server(body=bytes(4_194_305))
        with pytest.raises(PermanentError) as caught:
            await ask(server.make_url("/v1"))
        assert caught.value.error_type == "response_too_large"


class TestFailures:
    @pytest.mark.parametrize("status", [408, 429, 500, 503])
    async def test_tried_again(self, ask: Make, make_server: Make, status: int) -> None:
        error = {"error": {"message": f"Slow down, {API_KEY}", "type": "rate_limit", "code": None}}
        server = await make_server(status=status, text=json.dumps(error), headers={"Retry-After": "20"})
        with pytest.raises(RetryAfter, match=rf"POST .*/v1/chat/completions answered {status}: ") as caught:
            await ask(server.make_url("/v1"))
        assert caught.value.error_type == f"http_{status}"
        assert caught.value.seconds == 20.0
        assert "Slow down, [secret]" in str(caught.value)

    @pytest.mark.parametrize("status", [202, 301, 307, 400, 401, 403, 404, 422])
    async def test_permanent(self, ask: Make, make_server: Make, status: int) -> None:
        server = await make_server(status=status, headers={"Location": "http://169.254.169.254/"})
        with pytest.raises(PermanentError) as caught:
            await ask(server.make_url("/v1"))
        assert caught.value.error_type == f"http_{status}"

    async def test_connection_closed(self, ask: Make, make_raw_server: Make) -> None:
        with pytest.raises(RetryAfter) as caught:
            await ask(await make_raw_server(b"HTTP/1.1 OK 200\r\n\r\n"))
        assert caught.value.error_type == "network_error"
        assert API_KEY not in str(caught.value)

    async def test_refused_address(self, ask: Make, openai: Any) -> None:
        with pytest.raises(PermanentError, match="HTTP_ALLOW_PRIVATE") as caught:
            await ask(openai.make_url("/v1"), allow_private=False)
        assert caught.value.error_type == "address_refused"

    @pytest.mark.parametrize("base_url", [None, ""])
    async def test_unconfigured(self, ask: Make, base_url: str | None) -> None:
        with pytest.raises(PermanentError, match=r"set LLM_BASE_URL \(or DEMO_MODE=true") as caught:
            await ask(base_url)
        assert caught.value.error_type == "llm_not_configured"

    @pytest.mark.parametrize("base_url", ["api.openai.com/v1", "http://me:secret@a/v1", "http://a:99999/"])
    async def test_base_url_that_is_none(self, ask: Make, base_url: str) -> None:
        with pytest.raises(PermanentError, match=r"^LLM_BASE_URL") as caught:
            await ask(base_url)
        assert caught.value.error_type == "invalid_url"
        assert "secret" not in str(caught.value)

    async def test_prompt_that_cannot_be_encoded(self, ask: Make, openai: Any) -> None:
        with pytest.raises(PermanentError) as caught:
            await ask(openai.make_url("/v1"), response_format={"a": float("nan")})
        assert caught.value.error_type == "invalid_request"
