"""The OpenAPI document of the server: what may be sent and what comes back, checked by the tests against the server."""

from __future__ import annotations

from typing import Any

from model_runtime.handler.requests import Rules
from model_runtime.handler.settings import ServingSettings
from model_runtime.parameters import MAX_ANSWERS, MAX_STOP_CHARS, MAX_STOPS

_ERROR = {
    "type": "object",
    "required": ["code", "error"],
    "properties": {
        "code": {"type": "integer"},
        "error": {
            "type": "object",
            "required": ["message", "type", "code", "param"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "code": {"type": "string"},
                "param": {"type": ["string", "null"]},
            },
        },
    },
}


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


def _sampling(rules: Rules) -> dict[str, Any]:
    tokens = {"type": "integer", "minimum": 1, "maximum": rules.max_output_tokens}
    stop = {"type": "string", "minLength": 1, "maxLength": MAX_STOP_CHARS}
    fields: dict[str, dict[str, Any]] = {
        "max_tokens": tokens,
        "temperature": {"type": "number", "minimum": 0, "maximum": 2},
        "top_p": {"type": "number", "minimum": 0, "maximum": 1},
        "top_k": {"type": "integer", "minimum": -1, "maximum": 1_000_000},
        "repetition_penalty": {"type": "number", "minimum": 0.1, "maximum": 10},
        "presence_penalty": {"type": "number", "minimum": -2, "maximum": 2},
        "frequency_penalty": {"type": "number", "minimum": -2, "maximum": 2},
        "seed": {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1},
        "stop": {"anyOf": [stop, {"type": "array", "items": stop, "maxItems": MAX_STOPS}]},
    }
    return {name: _nullable(schema) for name, schema in fields.items()}


def _schemas(rules: Rules) -> dict[str, Any]:
    text = {"type": "string", "minLength": 1, "maxLength": rules.max_input_chars}
    texts = {"anyOf": [text, {"type": "array", "items": text, "minItems": 1, "maxItems": rules.max_prompts}]}
    details = {
        "type": "object",
        "required": ["finish_reason", "prompt_tokens", "generated_tokens", "truncated_tokens"],
        "properties": {
            "finish_reason": {"enum": ["stop", "length", "cancelled"]},
            "prompt_tokens": {"type": "integer"},
            "generated_tokens": {"type": "integer"},
            "truncated_tokens": {"type": "integer"},
        },
    }
    answer: dict[str, Any] = {
        "type": "object",
        "required": ["generated_text", "details"],
        "properties": {"generated_text": {"type": "string"}, "details": details},
    }
    label = {
        "type": "object",
        "required": ["label", "score"],
        "properties": {"label": {"type": "string"}, "score": {"type": "number"}},
    }
    native = _sampling(rules) | {
        "max_new_tokens": _sampling(rules)["max_tokens"],
        "min_new_tokens": _nullable({"type": "integer", "minimum": 0, "maximum": rules.max_output_tokens}),
        "do_sample": _nullable({"type": "boolean"}),
        "truncate": _nullable({"type": "boolean"}),
    }
    if not rules.generates:
        native = {"top_k": _nullable({"type": "integer", "minimum": 1}), "truncate": native["truncate"]}
        answer = {"type": "array", "items": label}
    openai = _sampling(rules) | {
        "model": _nullable({"type": "string", "minLength": 1, "maxLength": 1000}),
        "n": _nullable({"type": "integer", "minimum": 1, "maximum": MAX_ANSWERS}),
        "stream": _nullable({"type": "boolean"}),
    }
    message = {
        "type": "object",
        "required": ["role", "content"],
        "properties": {
            "role": {"enum": ["system", "developer", "user", "assistant", "tool"]},
            "content": {"type": "string", "maxLength": rules.max_input_chars},
        },
    }
    return {
        "Error": _ERROR,
        "Native": {
            "type": "object",
            "required": ["inputs"],
            "additionalProperties": False,
            "properties": {
                "inputs": texts,
                "parameters": _nullable({"type": "object", "properties": native, "additionalProperties": False}),
                "stream": _nullable({"type": "boolean"}),
            },
        },
        "NativeAnswer": {"anyOf": [answer, {"type": "array", "items": answer}]},
        "Chat": {
            "type": "object",
            "required": ["messages"],
            "properties": {"messages": {"type": "array", "items": message, "minItems": 1}, **openai},
        },
        "Completions": {"type": "object", "required": ["prompt"], "properties": {"prompt": texts, **openai}},
        "OpenAIAnswer": {
            "type": "object",
            "required": ["id", "object", "created", "model", "choices", "usage"],
            "properties": {"choices": {"type": "array", "items": {"type": "object"}}, "usage": {"type": "object"}},
        },
        "Feedback": {
            "type": "object",
            "required": ["request_id"],
            "additionalProperties": False,
            "properties": {
                "request_id": {"type": "string", "minLength": 1, "maxLength": 200},
                "rating": _nullable({"type": "integer", "minimum": 1, "maximum": 5}),
                "corrected_answer": _nullable({"type": "string", "minLength": 1}),
                "comment": _nullable({"type": "string", "minLength": 1}),
            },
        },
    }


def document(settings: ServingSettings, rules: Rules, *, feedback: bool = False) -> dict[str, Any]:
    """OpenAPI 3.1 for a server with these settings."""
    name = settings.model_name
    errors = {
        "400": "Not valid",
        "401": "No valid key",
        "408": "Body too slow",
        "413": "Too large",
        "503": "Busy; see Retry-After",
    }

    def post(request: str, answers: dict[str, str], summary: str, stream: str = "") -> dict[str, Any]:
        responses: dict[str, Any] = {
            status: {"description": "Answer", "content": {"application/json": {"schema": _ref(schema)}}}
            for status, schema in answers.items()
        }
        if stream:
            responses["200"]["content"][stream] = {"schema": {"type": "string"}}
        responses |= {
            status: {"description": text, "content": {"application/json": {"schema": _ref("Error")}}}
            for status, text in errors.items()
        }
        body = {"required": True, "content": {"application/json": {"schema": _ref(request)}}}
        return {"post": {"summary": summary, "requestBody": body, "responses": responses}}

    def get(summary: str, media: str = "application/json", unwell: bool = False) -> dict[str, Any]:
        responses: dict[str, Any] = {"200": {"description": "OK", "content": {media: {}}}}
        if unwell:
            responses["503"] = {"description": "Draining or broken", "content": {media: {}}}
        else:
            responses["401"] = {
                "description": "No valid key",
                "content": {"application/json": {"schema": _ref("Error")}},
            }
        return {"get": {"summary": summary, "responses": responses}}

    lines, events = "application/jsonlines", "text/event-stream"
    native = post("Native", {"200": "NativeAnswer"}, "The native form (OpenAI's bodies are understood as well)", lines)
    paths = dict.fromkeys(("/invocations", f"/predictions/{name}", f"/models/{name}/invoke"), native)
    if rules.generates:
        paths["/v1/chat/completions"] = post("Chat", {"200": "OpenAIAnswer"}, "OpenAI's chat completions", events)
        paths["/v1/completions"] = post("Completions", {"200": "OpenAIAnswer"}, "OpenAI's completions", events)
    if feedback:
        paths["/feedback"] = post("Feedback", {"202": "FeedbackAnswer"}, "What people think of an answer")
    paths |= {
        "/ping": get("Health, as a load balancer asks", unwell=True),
        "/metrics": get("Prometheus", "text/plain"),
        "/v1/models": get("The model served"),
        "/openapi.json": get("This document"),
    }
    schemas = _schemas(rules)
    if feedback:
        schemas["FeedbackAnswer"] = {
            "type": "object",
            "required": ["accepted", "id"],
            "properties": {"accepted": {"const": True}, "id": {"type": "string"}},
        }
    return {
        "openapi": "3.1.0",
        "info": {"title": f"Berth: {name}", "version": "1"},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}
