"""Searching: by photo, by marks, and why a photo was found."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Form

from src.server import models
from src.server.forms import as_text, read_descriptor, read_part, read_where
from src.server.routes import FORM, GUARDED, TOKEN, AtDesk, BoxField, Upload, WhereField, checked_bytes, errors
from src.server.shown import shown_answers, shown_explanation

router = APIRouter(prefix="/api", tags=["search"], dependencies=TOKEN)


@router.post("/search", dependencies=FORM, responses=errors(400, 408, 413, 422, *GUARDED))
def search(
    desk: AtDesk,
    photo: Upload,
    box: BoxField = "",
    top: Annotated[models.Top, Form()] = 20,
    where: WhereField = [],  # noqa: B006 - FastAPI copies it
    verify: Annotated[bool, Form(description="Order the first answers by matching local features.")] = False,
) -> models.Found:
    """Search the library for what a photo shows."""
    start = time.monotonic()
    data = checked_bytes(photo, desk.settings.max_upload)
    descriptor, answers = desk.search(data, read_part(box), top, read_where(where), verify)
    return models.Found(
        answers=shown_answers(answers), descriptor=as_text(descriptor), seconds=time.monotonic() - start
    )


@router.post("/rerank", responses=errors(400, 408, 413, 422, *GUARDED))
def rerank(desk: AtDesk, asked: models.Rerank) -> models.Found:
    """Search again with the query moved towards what was marked right and away from what was marked wrong.

    Photos marked right come first, those marked wrong last.
    """
    start = time.monotonic()
    query = read_descriptor(asked.descriptor, desk.finder.library.identity["dim"])
    right = list(dict.fromkeys(asked.right))
    wrong = [number for number in dict.fromkeys(asked.wrong) if number not in right]
    answers = desk.rerank(query, right, wrong, asked.top, asked.where)
    return models.Found(
        answers=shown_answers(answers, right, wrong), descriptor=asked.descriptor, seconds=time.monotonic() - start
    )


@router.post("/explain", dependencies=FORM, responses=errors(400, 404, 410, 408, 413, 422, *GUARDED))
def explain(
    desk: AtDesk,
    photo: Upload,
    id: Annotated[models.Number, Form()],
    box: BoxField = "",
) -> models.Explained:
    """Say why a photo of the library is found for a query: matching local features, attention, terms of the cosine."""
    data = checked_bytes(photo, desk.settings.max_upload)
    return shown_explanation(desk.explain(data, read_part(box), id))
