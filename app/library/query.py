"""The grammar of searches, and what else a search can ask for.

    a red heart                  one text
    cat:1 night:0.5 -dog         texts with weights, and one that is to be absent
    red cat:1, old town, -"dark sky":0.5

A weight ends a text, and so does a comma or a bar. A minus before a word takes that word alone, or a text in quotes.
Both languages' commas and quotes are read. As in prompts, a number above 10 is no weight.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from pipelines.core.prompts import MAX_WEIGHT
from pipelines.errors import BadInput

SORTS = ("date", "score", "likeness")
MOST_TERMS = 16
MOST_TEXT = 500  # characters of a search
MOST_LIKED = 64
PART = re.compile(
    r"""(?P<minus>-(?=[^\s\d.,，、|"“-]|["“]))?          # a minus that belongs to a text
        (?:["“](?P<quoted>[^"“”]+)["”]|(?P<word>[^\s,，、；;|"“”]+))
        |(?P<end>[,，、；;|])""",
    re.VERBOSE,
)
WEIGHT = re.compile(r"(?P<text>.*?)[:：](?P<weight>-?(?:\d+(?:\.\d*)?|\.\d+))")
DATE = re.compile(r"(\d{4})(?:-(\d{1,2})(?:-(\d{1,2}))?)?")


@dataclass(frozen=True)
class Term:
    """A text that pictures are to show; a `weight` below zero asks for its absence."""

    text: str
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Query:
    """What is asked of the library; `read_query` makes one. Without any field it asks for all pictures, newest first.

    `like` and `unlike` are ids of pictures. `given` are pictures from elsewhere that the found ones are to look like:
    data URIs, and from the command line paths; a path never comes from a browser. `since` and `until` are seconds since
    1970, the second excluded. `words` must stand in the prompt, another program's record, the note or the file's name.
    `sort` is one of SORTS; the empty text sorts by likeness where there is something to look like, else by date.
    """

    terms: tuple[Term, ...] = ()
    like: tuple[str, ...] = ()
    unlike: tuple[str, ...] = ()
    given: tuple[str, ...] = ()
    tool: str = ""
    model: str = ""
    tag: str = ""
    words: str = ""
    seed: int | None = None
    since: float | None = None
    until: float | None = None
    starred: bool = False
    binned: bool = False
    sort: str = ""
    stacked: bool = True

    @property
    def looks(self) -> bool:
        """Whether CLIP is needed to answer."""
        return bool(self.terms or self.like or self.unlike or self.given)

    @property
    def order(self) -> str:
        """One of SORTS."""
        if self.sort and (self.sort != "likeness" or self.looks):
            return self.sort
        return "likeness" if self.looks else "date"

    @property
    def filters(self) -> bool:
        """Whether some pictures are left out by their facts or marks."""
        plain = Query(
            terms=self.terms, like=self.like, unlike=self.unlike, given=self.given, sort=self.sort,
            stacked=self.stacked,
        )  # fmt: skip
        return self != plain


def read_query(text: str = "", *, date: str = "", seed: int | str | None = None, **fields: Any) -> Query:
    """A Query from what a user typed.

    Args:
        text: The search, in the grammar of this module.
        date: A year, a month or a day ("2026-11"), or two of them with two dots between ("2026-11-01..2026-11-15",
            "2026-11.."), in local time.
        seed: A whole number, as such or as text; None and the empty text ask for none.
        **fields: The other fields of Query. Lists of ids may be any sequences.

    Returns:
        The query.

    Raises:
        BadInput: When the text, the date, the seed or the sort order is none.
    """
    since, until = read_dates(date)
    sort = str(fields.get("sort") or "")
    if sort and sort not in SORTS:
        raise BadInput("library.sort_unknown", sort=sort[:40], known=", ".join(SORTS))
    for name in ("like", "unlike", "given"):
        fields[name] = tuple(fields.get(name) or ())
        if len(fields[name]) > MOST_LIKED:
            raise BadInput("library.too_many_liked", count=len(fields[name]), most=MOST_LIKED)
    for name in ("tool", "model", "tag", "words"):
        fields[name] = " ".join(str(fields.get(name) or "").split())[:MOST_TEXT]
    if seed is not None and not isinstance(seed, int):
        digits = seed.strip()
        if digits and not (digits.isdecimal() and len(digits) <= 20):
            raise BadInput("library.seed_form", seed=digits[:40])
        seed = int(digits) if digits else None
    return Query(terms=read_terms(text), since=since, until=until, seed=seed, **fields)


def read_terms(text: str) -> tuple[Term, ...]:
    """The texts of a search with their weights; those of weight 0 are dropped. BadInput when there are too many."""
    text = " ".join(str(text).split())
    if len(text) > MOST_TEXT:
        raise BadInput("library.search_too_long", count=len(text), most=MOST_TEXT)
    terms: list[Term] = []
    words: list[str] = []

    def close(weight: float = 1.0) -> None:
        if words:
            terms.append(Term(" ".join(words), weight))
            words.clear()

    at = 0
    while part := PART.search(text, at):
        at = part.end()
        if part["end"]:
            close()
            continue
        if part["quoted"]:
            close()
            weight, at = _weight_after(text, at)
            terms.append(Term(" ".join(part["quoted"].split()), -weight if part["minus"] else weight))
            continue
        word, weight = _split_weight(part["word"])
        if part["minus"]:
            close()
            terms.append(Term(word, -(1.0 if weight is None else weight)))
            continue
        if word:
            words.append(word)
        if weight is not None:
            close(weight)
    close()
    kept = tuple(term for term in terms if term.text and term.weight)
    if len(kept) > MOST_TERMS:
        raise BadInput("library.too_many_terms", count=len(kept), most=MOST_TERMS)
    return kept


def _split_weight(word: str) -> tuple[str, float | None]:
    found = WEIGHT.fullmatch(word)
    if not found or abs(float(found["weight"])) > MAX_WEIGHT:
        return word, None
    return found["text"], float(found["weight"])


def _weight_after(text: str, at: int) -> tuple[float, int]:
    """The weight that stands right behind a quoted text, and where it ends."""
    found = re.compile(r"[:：](-?(?:\d+(?:\.\d*)?|\.\d+))").match(text, at)
    if not found or abs(float(found[1])) > MAX_WEIGHT:
        return 1.0, at
    return float(found[1]), found.end()


def read_dates(text: str) -> tuple[float | None, float | None]:
    """The first moment of a date or span, and the first after it; None where it is open. BadInput when it is none."""
    text = text.strip()
    if not text:
        return None, None
    first, dots, last = text.partition("..")
    if not dots:
        last = first
    begin = _day(first, text)[0] if first.strip() else None
    end = _day(last, text)[1] if last.strip() else None
    if begin is None and end is None:
        raise BadInput("library.date_form", date=text[:40])
    return begin, end


def _day(text: str, whole: str) -> tuple[float, float]:
    found = DATE.fullmatch(text.strip())
    try:
        if not found:
            raise ValueError(text)
        year, month, day = (int(part) if part else None for part in found.groups())
        assert year is not None
        begin = datetime(year, month or 1, day or 1)
        if day:
            end = begin + timedelta(days=1)
        elif month:
            end = datetime(year + month // 12, month % 12 + 1, 1)
        else:
            end = datetime(year + 1, 1, 1)
        return begin.timestamp(), end.timestamp()
    except (ValueError, OverflowError, OSError):
        raise BadInput("library.date_form", date=whole[:40]) from None


def more_like(query: Query, like: Sequence[str] = (), unlike: Sequence[str] = ()) -> Query:
    """The query, asking also for pictures like these and unlike those. An id stands in one of the two only."""
    liked = [*(name for name in query.like if name not in unlike), *like]
    disliked = [*(name for name in query.unlike if name not in like), *unlike]
    return replace(query, like=tuple(dict.fromkeys(liked)), unlike=tuple(dict.fromkeys(disliked)))
