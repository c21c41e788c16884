"""The API's documentation for a person, from its OpenAPI description, without scripts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from fastapi import APIRouter, Request, Response

from src.templates import template

TEMPLATE = Path(__file__).parent / "page" / "api.html.j2"

router = APIRouter(include_in_schema=False)


class Field(NamedTuple):
    """A parameter, or a field of what is sent."""

    name: str
    needed: bool
    about: str


class Operation(NamedTuple):
    """A route: what it is for, what it takes, what it answers (status and why)."""

    method: str
    path: str
    about: str
    kind: str
    fields: list[Field]
    answers: list[tuple[str, str]]


@router.get("/api")
async def documentation(request: Request) -> Response:
    """The page."""
    described = request.app.openapi()
    info = described["info"]
    page = template(TEMPLATE).render(
        title=info["title"],
        about=info["description"].strip().split("\n\n"),
        address=str(request.base_url),
        operations=list(_operations(described)),
    )
    return Response(page, media_type="text/html")


def _operations(described: dict[str, Any]) -> Iterator[Operation]:
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            kind, sent = _sent(described, operation)
            given = [Field(one["name"], one["required"], one["description"]) for one in operation.get("parameters", [])]
            answers = [(status, answer["description"]) for status, answer in operation["responses"].items()]
            yield Operation(method.upper(), path, operation["description"], kind, [*given, *sent], answers)


def _sent(described: dict[str, Any], operation: dict[str, Any]) -> tuple[str, list[Field]]:
    """What is sent as, and its fields."""
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        schema = described["components"]["schemas"][content["schema"]["$ref"].rpartition("/")[2]]
        needed = schema.get("required", [])
        return f"Sent as {kind}. ", [
            Field(name, name in needed, field.get("description", "")) for name, field in schema["properties"].items()
        ]
    return "", []
