"""The library as a whole, over the API: near-duplicates, and where photos were taken."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, HTTPException, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from dolglab.library.duplicates import Member, clusters_of, kept_of
from dolglab.server import schemas
from dolglab.server.duplicates import Form
from dolglab.server.routes import GUARDED, TOKEN, Service, errors

# Seconds to wait for an answer, clusters of a page, photos of one that are listed, and choices of a person.
WAIT, MAX_CLUSTERS, MAX_MEMBERS, MAX_CHOICES = 1.0, 100, 60, 20_000

router = APIRouter(prefix="/api", tags=["overviews"], dependencies=TOKEN)


class DuplicatePhoto(schemas.Photo):
    """A photo of a cluster of near-duplicates."""

    file_width: int | None = Field(description="Pixels of the file; null: not known, `dolglab library exif` reads it.")
    file_height: int | None
    bytes: int
    cosine: float = Field(description="Of its descriptor and that of the cluster's first photo.")
    identical: bool = Field(description="Its file's bytes are those of the first photo's file.")
    there: bool = Field(description="Whether its file is still there.")
    keep: bool = Field(description="It is kept by the rule.")


class Cluster(BaseModel):
    """Photos that hang together by near-duplicates; the one to keep comes first."""

    number: int
    size: int = Field(description="How many photos it has; no more than 60 of them are listed.")
    photos: list[DuplicatePhoto]


class Clusters(BaseModel):
    """Near-duplicates, the surest clusters first."""

    state: Literal["searching", "found"]
    share: float = Field(description="What is done of the search.")
    seconds: float = Field(description="What the search took.")
    outdated: bool = Field(description="Photos came or went since: `again` finds duplicates anew.")
    in_cells: bool = Field(description="Photos were compared within cells of like ones, not each with each.")
    compared: int = Field(description="Photos that were compared.")
    photos: int = Field(description="Photos in clusters.")
    total: int = Field(description="Clusters.")
    clusters: list[Cluster]


class Choice(BaseModel):
    """Which photos of clusters are kept."""

    model_config = ConfigDict(extra="forbid")

    least: float = Field(0.98, ge=0.8, le=1, description="The cosine that duplicates were found with.")
    form: Form = Field("txt", description="Paths, one a line, or a CSV with cluster, photo and bytes.")
    keep: list[schemas.Number] = Field([], max_length=MAX_CHOICES, description="Photos to keep, besides the rule's.")
    drop: list[schemas.Number] = Field([], max_length=MAX_CHOICES, description="Photos not to keep.")


class Places(BaseModel):
    """Where photos were taken: three lists of one length."""

    ids: tuple[int, ...]
    latitudes: tuple[float, ...] = Field(description="Degrees, north positive.")
    longitudes: tuple[float, ...] = Field(description="Degrees, east positive.")


class Paths(Response):
    """A text or a table of paths."""

    media_type = "text/plain; charset=utf-8"


@router.get("/duplicates", responses=errors(400, 422, *GUARDED))
def duplicates(
    service: Service,
    least: Annotated[float, Query(ge=0.8, le=1, description="From this cosine on photos are near-duplicates.")] = 0.98,
    offset: Annotated[int, Query(ge=0, le=schemas.MAX_ID, description="Clusters to pass over.")] = 0,
    limit: Annotated[int, Query(ge=1, le=MAX_CLUSTERS, description="Clusters wanted.")] = 20,
    again: Annotated[bool, Query(description="Find them anew where photos came or went since.")] = False,
) -> Clusters:
    """List clusters of near-duplicates. Finding them goes on by itself: ask again until `state` is found."""
    library = service.finder.library
    run = service.duplicates.run(round(least, 2), again)
    # What is found at once is answered at once.
    run.done.wait(WAIT)
    if run.error is not None:
        raise run.error
    clusters: list[Cluster] = []
    if (found := run.found) is not None:
        page = clusters_of(library, found, offset + 1, offset + limit)
        clusters = [_serialize(number, members, found.least) for number, members in page if len(members) > 1]
    return Clusters(
        state="searching" if found is None else "found",
        share=run.share,
        seconds=run.seconds,
        outdated=service.duplicates.outdated(run),
        in_cells=found is not None and found.in_cells,
        compared=0 if found is None else found.compared,
        photos=0 if found is None else len(found.numbers),
        total=0 if found is None else found.total,
        clusters=clusters,
    )


@router.post("/duplicates/rest", response_class=Paths, responses=errors(400, 403, 408, 409, 413, 422, *GUARDED))
def rest(service: Service, choice: Choice) -> Paths:
    """Download the paths of the photos that need not be kept. Nothing is deleted.

    Of each cluster whose photos are listed, one that is kept is there. A server that only searches tells no paths.
    """
    if service.settings.read_only:
        raise HTTPException(403, "this server tells no paths (--read-only): dolglab library duplicates --rest does")
    data = service.duplicates.rest(round(choice.least, 2), choice.form, choice.keep, choice.drop)
    disposition = f"attachment; filename=\"not-kept.{choice.form}\"; filename*=UTF-8''not-kept.{choice.form}"
    media_type = "text/csv; charset=utf-8" if choice.form == "csv" else Paths.media_type
    return Paths(data, headers={"Content-Disposition": disposition}, media_type=media_type)


@router.get("/places", responses=errors(*GUARDED))
def places(service: Service) -> Places:
    """Say where the photos were taken whose columns `latitude` and `longitude` say so."""
    found = service.places()
    ids, latitudes, longitudes = zip(*found, strict=True) if found else ((), (), ())
    return Places(ids=ids, latitudes=latitudes, longitudes=longitudes)


def _serialize(number: int, members: list[Member], least: float) -> Cluster:
    kept = kept_of(members, least)
    first = members[0].photo
    photos = []
    for photo, cosine in members[:MAX_MEMBERS]:
        height, width = photo.stored or (None, None)
        photos.append(
            DuplicatePhoto(
                **schemas.serialize_photo(photo).model_dump(),
                file_width=width,
                file_height=height,
                bytes=photo.size,
                cosine=min(cosine, 1.0),
                identical=photo is not first and photo.digest is not None and photo.digest == first.digest,
                there=photo.there,
                keep=photo.id in kept,
            )
        )
    return Cluster(number=number, size=len(members), photos=photos)
