"""What the library gives, as the models of the API."""

from __future__ import annotations

import base64
from collections.abc import Collection, Sequence
from typing import Any

from src.library.answer import Answer
from src.library.answers import printable
from src.library.contents import Photo
from src.library.explanation import Explanation
from src.server import models


def label(name: str) -> str:
    """A photo's file name and its folder's; the rest of the path stays here."""
    return printable("/".join(name.rsplit("/", 2)[-2:]))


def shown_photo(photo: Photo) -> models.Photo:
    """A photo."""
    return models.Photo(**_fields(photo))


def shown_answers(
    answers: Sequence[Answer], right: Collection[int] = (), wrong: Collection[int] = ()
) -> list[models.Answer]:
    """Answers, best first, with what they were marked."""
    marks: dict[int | None, models.Mark] = {**dict.fromkeys(wrong, "wrong"), **dict.fromkeys(right, "right")}
    return [
        models.Answer(
            **_fields(answer.photo),
            rank=rank,
            cosine=min(answer.cosine, 1.0),
            inliers=answer.inliers,
            there=answer.there,
            mark=marks.get(answer.photo.id),
        )
        for rank, answer in enumerate(answers, 1)
    ]


def shown_explanation(found: Explanation) -> models.Explained:
    """Why an answer was found."""
    terms = None if found.terms is None else models.Terms(**found.terms._asdict())
    query, answer = map(_text, found.attention)
    return models.Explained(
        matches=found.matches,
        inliers=found.inliers,
        terms=terms,
        picture=_text(found.picture),
        attention=(query, answer),
    )


def _fields(photo: Photo) -> dict[str, Any]:
    height, width = photo.shape or (None, None)
    return {
        "id": photo.id,
        "name": label(photo.name),
        "width": width,
        "height": height,
        "metadata": dict(photo.metadata),
    }


def _text(picture: bytes) -> str:
    return base64.b64encode(picture).decode()
