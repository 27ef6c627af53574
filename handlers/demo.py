"""Stand-ins for the two handlers that call a service, for `DEMO_MODE`: nothing leaves the process.

They take the same configurations and return the same shapes, with `"mocked": true`. Latency and answers
follow from the execution and the node alone, so that a repeated attempt sees what the first one saw.
"""

from __future__ import annotations

import hashlib
from asyncio import sleep
from copy import deepcopy
from typing import Any

from ..plugins import NodeContext, handler
from .external_service import build_request
from .external_service_config import ExternalServiceConfig
from .llm_service import LlmServiceConfig

LATENCY_SECONDS_MIN = 1.0
LATENCY_SECONDS_MAX = 2.0

_SUBJECT_CHARACTERS = 60

# The first key that is in the node's id decides; failing that, in the URL's path, from its end.
SERVICE_ANSWERS: dict[str, Any] = {
    "user": {"id": 123, "name": "Ada Example", "email": "ada@example.com", "active": True},
    "post": [
        {"id": 1, "user_id": 123, "title": "Hello", "body": "A first post."},
        {"id": 2, "user_id": 123, "title": "Graphs", "body": "Why they have no cycles."},
    ],
    "comment": [{"id": 1, "post_id": 1, "author": "Grace Example", "text": "Well said."}],
    "order": [{"id": 1001, "user_id": 123, "total": 59.9, "currency": "EUR", "status": "shipped"}],
    "product": [{"id": 1, "name": "Desk lamp", "price": 29.95, "currency": "EUR", "in_stock": True}],
    "payment": {"id": "pay_1", "amount": 59.9, "currency": "EUR", "status": "succeeded"},
    "weather": {"city": "Vienna", "temperature_celsius": 21.5, "condition": "sunny"},
    "status": {"status": "ok"},
    "health": {"status": "ok"},
    "data": {"items": [{"id": 1, "value": 42}, {"id": 2, "value": 17}], "total": 2},
}

# The first word that is in the prompt's instruction decides; failing that, in the rest of the prompt.
MODEL_ANSWERS = {
    "summar": "Summary: the main points of {subject} are clear and consistent.",
    "translat": "Translation: {subject}",
    "sentiment": "Sentiment of {subject}: positive, with high confidence.",
    "classif": "Class of {subject}: general.",
    "extract": "Extracted from {subject}: two names, one date, one amount.",
    "compar": "Comparison: {subject} shows more that is alike than different.",
    "analy": "Analysis: {subject} shows a steady trend and no anomalies.",
    "explain": "Explanation: {subject} comes down to one simple idea.",
    "generat": "Here is a draft based on {subject}.",
    "write": "Here is a draft based on {subject}.",
}
MODEL_ANSWER_DEFAULT = "This is a canned answer to {subject}."


def latency_seconds(context: NodeContext) -> float:
    """Return how long this node pretends to work, in seconds: the same each time it is asked."""
    digest = hashlib.sha256(f"{context.execution_id}/{context.node_id}".encode()).digest()
    share = int.from_bytes(digest[:4], "big") / 0xFFFF_FFFF
    return LATENCY_SECONDS_MIN + share * (LATENCY_SECONDS_MAX - LATENCY_SECONDS_MIN)


@handler("call_external_service", config=ExternalServiceConfig)
async def demo_external_service(config: ExternalServiceConfig, context: NodeContext) -> Any:
    """Pretend to call an HTTP service: after a second or two, an answer that suits the node or the URL."""
    request = build_request(config, context.idempotency_key)
    await sleep(latency_seconds(context))
    return {
        "status_code": 200,
        "url": str(request.url),
        "method": request.method,
        "headers": {"content-type": "application/json"},
        "response": _service_answer(context.node_id, request.url.path),
        "mocked": True,
    }


def _service_answer(node_id: str, path: str) -> Any:
    for text in (node_id, *reversed(path.split("/"))):
        for key, answer in SERVICE_ANSWERS.items():
            if key in text.lower():
                return deepcopy(answer)
    return {"message": f"A mocked answer for {node_id}.", "path": path}


@handler("llm_service", config=LlmServiceConfig)
async def demo_llm_service(config: LlmServiceConfig, context: NodeContext) -> Any:
    """Pretend to ask a language model: after a second or two, an answer that suits the prompt."""
    await sleep(latency_seconds(context))
    response = _model_answer(config.prompt)
    prompt_tokens, completion_tokens = _token_count(config.prompt), _token_count(response)
    return {
        "model": config.model,
        "response": response,
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        },
        "finish_reason": "stop",
        "mocked": True,
    }


def _model_answer(prompt: str) -> str:
    # The instruction usually ends at the first colon; what follows it is the subject.
    instruction, _, rest = prompt.partition(":")
    words = [word for text in (instruction, rest) for word in MODEL_ANSWERS if word in text.lower()]
    template = MODEL_ANSWERS[words[0]] if words else MODEL_ANSWER_DEFAULT
    subject = " ".join((rest or prompt).split())
    if len(subject) > _SUBJECT_CHARACTERS:
        subject = f"{subject[:_SUBJECT_CHARACTERS]}..."
    return template.replace("{subject}", f'"{subject}"')


def _token_count(text: str) -> int:
    """Return a plausible number of tokens: about four characters make one."""
    return len(text) // 4 + 1
