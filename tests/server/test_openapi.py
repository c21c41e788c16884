"""The API against its own description, with made-up requests."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.openapi import from_asgi
from schemathesis.schemas import BaseSchema
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from server.conftest import Start

TOKEN = {"Authorization": "Bearer t"}
OPERATIONS = [
    ("POST", "/api/search"),
    ("POST", "/api/rerank"),
    ("POST", "/api/explain"),
    ("GET", "/api/photos"),
    ("GET", "/api/photos/{id}"),
    ("GET", "/api/photos/{id}/thumbnail"),
    ("GET", "/api/photos/{id}/image"),
    ("GET", "/api/map"),
    ("GET", "/api/folders"),
    ("GET", "/api/values"),
    ("POST", "/api/photos"),
    ("DELETE", "/api/photos/{id}"),
    ("POST", "/api/marks/export"),
    ("GET", "/api/duplicates"),
    ("POST", "/api/duplicates/rest"),
    ("GET", "/api/places"),
    ("GET", "/api/health"),
    ("GET", "/api/library"),
    ("GET", "/api/metrics"),
]
NOTHING_ASKED = ("/api/health", "/api/library", "/api/metrics")


@pytest.fixture
def api(start: Start) -> BaseSchema:
    app = start(names=frozenset({"testserver"}), token="t").app
    return from_asgi("/api/openapi.json", app, headers=TOKEN)


def test_every_operation_is_tried(api: BaseSchema) -> None:
    found = [result.ok() for result in api.get_all_operations()]
    assert {(operation.method.upper(), operation.path) for operation in found} == set(OPERATIONS)
    assert all(operation.definition.raw.get("description") for operation in found)


@pytest.mark.parametrize(
    ("method", "path", "mode"),
    [
        (method, path, mode)
        for method, path in OPERATIONS
        for mode in GenerationMode
        # What takes nothing cannot be given anything wrong.
        if mode.is_positive or path not in NOTHING_ASKED
    ],
)
def test_answers_are_as_described(api: BaseSchema, query: bytes, method: str, path: str, mode: GenerationMode) -> None:
    @given(case=api[path][method].as_strategy(generation_mode=mode))
    @settings(
        max_examples=8,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def answers(case: Case) -> None:
        # What is made up for a photo is none.
        if mode.is_positive and isinstance(case.body, dict) and "photo" in case.body:
            case.body["photo"] = query
        response = case.call(headers=TOKEN)
        # A box that fits its description may still be outside the photo; what is too long may be refused as too large,
        # which schemathesis does not count as a refusal.
        too_large = [negative_data_rejection] if response.status_code == 413 else []
        case.validate_response(response, headers=TOKEN, excluded_checks=[positive_data_acceptance, *too_large])

    answers()
