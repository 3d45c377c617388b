"""The pictures made, and any folder of pictures: found, searched with CLIP, marked, put into the bin, followed back.

`Library` is the door. Nothing outside this folder needs more than the names here.
"""

from app.library.entry import Act, Broken, Entry, Foreign, Found, Lineage, Marks, Page, Progress, Relative
from app.library.foreign import foreign_of, foreign_of_text
from app.library.library import Library
from app.library.query import SORTS, Query, Term, more_like, read_query, read_terms
from app.library.seeing import ClipLike, as_shown, vectors_of
from app.library.thumbnails import THUMBNAIL

__all__ = [
    "SORTS",
    "THUMBNAIL",
    "Act",
    "Broken",
    "ClipLike",
    "Entry",
    "Foreign",
    "Found",
    "Library",
    "Lineage",
    "Marks",
    "Page",
    "Progress",
    "Query",
    "Relative",
    "Term",
    "as_shown",
    "foreign_of",
    "foreign_of_text",
    "more_like",
    "read_query",
    "read_terms",
    "vectors_of",
]
