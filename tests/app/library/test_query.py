"""The grammar of searches."""

from __future__ import annotations

from datetime import datetime

import pytest

from app.library import Query, Term, more_like, read_query, read_terms
from pipelines.errors import BadInput

SEARCHES = {
    "a red heart": [("a red heart", 1)],
    "cat:1 night:0.5 -dog": [("cat", 1), ("night", 0.5), ("dog", -1)],
    "red cat:2, old town | rain": [("red cat", 2), ("old town", 1), ("rain", 1)],
    '-"dark sky":0.5 sea': [("dark sky", -0.5), ("sea", 1)],
    "猫：1，夜晚:0.5 -狗": [("猫", 1), ("夜晚", 0.5), ("狗", -1)],
    "the train at 10:30": [("the train at 10:30", 1)],
    "dog:-1 well-known cat": [("dog", -1), ("well-known cat", 1)],
    "nothing:0 ": [],
    "": [],
    "- -- :": [("- -- :", 1)],
}


@pytest.mark.parametrize("text", SEARCHES)
def test_texts_and_weights(text: str) -> None:
    assert read_terms(text) == tuple(Term(*pair) for pair in SEARCHES[text])


@pytest.mark.parametrize(
    ("date", "first", "after"),
    [
        ("2026", datetime(2026, 1, 1), datetime(2027, 1, 1)),
        ("2026-12", datetime(2026, 12, 1), datetime(2027, 1, 1)),
        ("2026-02-28", datetime(2026, 2, 28), datetime(2026, 3, 1)),
        ("2026-11-01..2026-11-15", datetime(2026, 11, 1), datetime(2026, 11, 16)),
        ("2026-11..", datetime(2026, 11, 1), None),
        ("..2025", None, datetime(2026, 1, 1)),
    ],
)
def test_dates(date: str, first: datetime | None, after: datetime | None) -> None:
    query = read_query(date=date)
    assert query.since == (None if first is None else first.timestamp())
    assert query.until == (None if after is None else after.timestamp())


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"date": "yesterday"}, "library.date_form"),
        ({"date": "2026-13"}, "library.date_form"),
        ({"date": ".."}, "library.date_form"),
        ({"seed": "12x"}, "library.seed_form"),
        ({"seed": "9" * 21}, "library.seed_form"),
        ({"sort": "size"}, "library.sort_unknown"),
        ({"text": "a " * 300}, "library.search_too_long"),
        ({"text": ",".join("abcdefghijklmnopqrst")}, "library.too_many_terms"),
        ({"like": [str(k) for k in range(65)]}, "library.too_many_liked"),
    ],
)
def test_what_is_no_query_is_told(values: dict[str, object], code: str) -> None:
    with pytest.raises(BadInput) as problem:
        read_query(**values)  # type: ignore[arg-type]
    assert problem.value.code == code


def test_a_query_sorts_by_what_it_asks_for() -> None:
    assert Query().order == "date" and Query(sort="likeness").order == "date"
    assert read_query("cat").order == "likeness" and read_query("cat", sort="date").order == "date"
    assert read_query(seed="7").seed == 7 and read_query(seed="").seed is None


def test_like_and_unlike_exclude_each_other() -> None:
    query = more_like(Query(), like=["a", "b"])
    query = more_like(query, unlike=["b"])
    assert (query.like, query.unlike) == (("a",), ("b",))
    assert more_like(query, like=["b", "a"]).unlike == ()
