"""What a search gives."""

from __future__ import annotations

import os
from dataclasses import dataclass

from src.library.contents import Photo


@dataclass(frozen=True)
class Answer:
    """A photo that a search found.

    Attributes:
        photo: the photo.
        cosine: of its descriptor and the query's.
        inliers: local features of the query that one transformation brings to this photo; None where nobody looked.
    """

    photo: Photo
    cosine: float
    inliers: int | None = None

    @property
    def there(self) -> bool:
        """Whether its file is still where it was; of an object store nobody asks."""
        return "://" in self.photo.name or os.path.isfile(self.photo.name)
