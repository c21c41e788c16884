"""API routes about the library as a whole: near-duplicates and the locations of photos."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, HTTPException, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from dolglab.library.duplicates import Member, clusters_of, kept_of
from dolglab.server import schemas
from dolglab.server.duplicates import Form
from dolglab.server.routes import GUARDED, TOKEN, Service, attachment, errors

# Seconds to wait for a result, clusters per page, listed photos per cluster, and choices per request.
WAIT, MAX_CLUSTERS, MAX_MEMBERS, MAX_CHOICES = 1.0, 100, 60, 20_000

router = APIRouter(prefix="/api", tags=["overviews"], dependencies=TOKEN)


class DuplicatePhoto(schemas.Photo):
    """A photo of a cluster of near-duplicates."""

    file_width: int | None = Field(description="Width of the file in pixels; null: run `dolglab library exif`.")
    file_height: int | None
    bytes: int
    cosine: float = Field(description="Cosine similarity to the cluster's first photo.")
    identical: bool = Field(description="Whether its file is identical to that of the first photo.")
    there: bool = Field(description="Whether its file still exists.")
    keep: bool = Field(description="Whether the default rule keeps it.")


class Cluster(BaseModel):
    """A connected component of near-duplicates; the photo to keep comes first."""

    number: int
    size: int = Field(description="Number of photos; at most 60 of them are listed.")
    photos: list[DuplicatePhoto]


class Clusters(BaseModel):
    """Clusters of near-duplicates, most similar first."""

    state: Literal["searching", "found"]
    share: float = Field(description="Fraction of the search that is done, 0 to 1.")
    seconds: float = Field(description="Duration of the search; 0 until it is done.")
    outdated: bool = Field(description="Photos were added or removed since; `again` repeats the search.")
    in_cells: bool = Field(description="Photos were compared within cells of similar ones only, not all pairs.")
    compared: int = Field(description="Number of photos compared.")
    photos: int = Field(description="Number of photos in clusters.")
    total: int = Field(description="Number of clusters.")
    clusters: list[Cluster]


class Choice(BaseModel):
    """Which photos of the clusters to keep."""

    model_config = ConfigDict(extra="forbid")

    least: float = Field(0.98, ge=0.8, le=1, description="The minimum cosine of the search.")
    form: Form = Field("txt", description="Paths, one per line, or a CSV with cluster, photo and bytes.")
    keep: list[schemas.Number] = Field([], max_length=MAX_CHOICES, description="Photos to keep besides the rule's.")
    drop: list[schemas.Number] = Field([], max_length=MAX_CHOICES, description="Photos not to keep.")


class Places(BaseModel):
    """The locations of photos: three lists of the same length."""

    ids: tuple[int, ...]
    latitudes: tuple[float, ...] = Field(description="Degrees, north positive.")
    longitudes: tuple[float, ...] = Field(description="Degrees, east positive.")


class Paths(Response):
    """A list or table of paths."""

    media_type = "text/plain; charset=utf-8"


@router.get("/duplicates", responses=errors(400, 422, *GUARDED))
def duplicates(
    service: Service,
    least: Annotated[float, Query(ge=0.8, le=1, description="Minimum cosine of near-duplicates.")] = 0.98,
    offset: Annotated[int, Query(ge=0, le=schemas.MAX_ID, description="Clusters to skip.")] = 0,
    limit: Annotated[int, Query(ge=1, le=MAX_CLUSTERS, description="Maximum number of clusters.")] = 20,
    again: Annotated[bool, Query(description="Repeat the search if photos were added or removed since.")] = False,
) -> Clusters:
    """List clusters of near-duplicates. The search runs in the background: poll until `state` is found."""
    library = service.finder.library
    run = service.duplicates.run(round(least, 2), again)
    # Searches that finish quickly are answered with the first request.
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

    Every cluster keeps at least one photo whose file exists. A read-only server discloses no paths.
    """
    if service.settings.read_only:
        raise HTTPException(403, "this server is read-only and lists no paths: use dolglab library duplicates --rest")
    data = service.duplicates.rest(round(choice.least, 2), choice.form, choice.keep, choice.drop)
    media_type = "text/csv; charset=utf-8" if choice.form == "csv" else Paths.media_type
    return Paths(data, headers=attachment(f"not-kept.{choice.form}"), media_type=media_type)


@router.get("/places", responses=errors(*GUARDED))
def places(service: Service) -> Places:
    """Return the locations of photos, from their columns `latitude` and `longitude`."""
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
