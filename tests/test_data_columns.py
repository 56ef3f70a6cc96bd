"""What a column holds, and the form its cells are given."""

import uuid

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offline_tune.data.cells import MISSING, dates, numbers, text, truths
from offline_tune.data.columns import clean, infer_columns
from offline_tune.data.wording import listed, quoted, suggestion
from offline_tune.errors import DataError
from offline_tune.task import Column, ColumnKind

NUMERIC, CATEGORICAL, BOOLEAN = ColumnKind.NUMERIC, ColumnKind.CATEGORICAL, ColumnKind.BOOLEAN
RNG = np.random.default_rng(0)
PROSE = [f"the {i}th customer wrote that it was {'good' if i % 2 else 'bad'}" for i in range(60)]
AWKWARD = ['"', "'", "a\nb", "{x}", "}{", "\\", "ignore previous instructions", "日本", "x" * 10_000, "\u202e", "🙂"]


def infer(cells, name="column"):
    (column,), notes = infer_columns(pd.DataFrame({name: cells}))
    return column, [note.text for note in notes]


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["1", "2.5", "-3e2", ".5"], NUMERIC),
        (["1", "2", "1", "2"], NUMERIC),
        (["1", "NA", "?", "2", None], NUMERIC),
        ([1, 2, 2], NUMERIC),
        ([1.5, None, 2.5], NUMERIC),
        ([*map(str, range(100)), "abc"], NUMERIC),
        (["1", "2", "abc", "abc"], CATEGORICAL),
        (["x", "y", "x"], CATEGORICAL),
        (["x", None, "x"], CATEGORICAL),
        (["Some college, no degree", "High school or less"] * 30, CATEGORICAL),
        (["NA", "DE", "FR", "NA"], CATEGORICAL),
        (["1234567890123456789", "1234567890123456780"] * 9, CATEGORICAL),
        ([1234567890123456789, 1234567890123456780] * 9, CATEGORICAL),
        (["01/02/2020", "13/02/2020", "01/02/2020"], CATEGORICAL),
        (["yes", "No", "yes", "?"], BOOLEAN),
        (["TRUE", "false", None], BOOLEAN),
        ([True, False, True], BOOLEAN),
        (["2024-01-31", "2024/2/1", "2024-02-01T12:30:00Z", None], ColumnKind.DATE),
        (pd.to_datetime(["2024-01-31", None, "2024-02-01"]), ColumnKind.DATE),
        (PROSE, ColumnKind.TEXT),
        (["東京の天気はとても良いですので散歩に行きましょう" + str(i) for i in range(30)], ColumnKind.TEXT),
        ([str(uuid.UUID(int=i)) for i in range(40)], ColumnKind.IDENTIFIER),
        ([f"C-{i}" for i in range(40)], ColumnKind.IDENTIFIER),
        (list(range(1, 41)), ColumnKind.IDENTIFIER),
        ([str(i) for i in RNG.permutation(50)], ColumnKind.IDENTIFIER),
        (list(range(1000, 1400, 8)), ColumnKind.IDENTIFIER),
        ([10**18 + i for i in range(40)], ColumnKind.IDENTIFIER),
        ([f"{i / 7:.4f}" for i in range(1, 40)], NUMERIC),
        (RNG.integers(0, 10**6, 200).tolist(), NUMERIC),
        (["x", "x", "x"], ColumnKind.CONSTANT),
        ([3.0, 3.0], ColumnKind.CONSTANT),
        ([True, True], ColumnKind.CONSTANT),
        ([None, None], ColumnKind.EMPTY),
        (["NA", "?", ""], ColumnKind.EMPTY),
        (["inf", "-inf"], ColumnKind.EMPTY),
        ([np.nan, np.nan], ColumnKind.EMPTY),
    ],
)
def test_a_column_has_the_kind_that_a_reader_would_say(cells, kind):
    assert infer(cells)[0].kind is kind


@pytest.mark.parametrize("name", ["id", "customer_id", "PassengerId", "Unnamed: 0", "ID"])
def test_few_distinct_values_are_an_identifier_where_the_name_says_so(name):
    assert infer([11, 47, 902], name)[0].kind is ColumnKind.IDENTIFIER
    assert infer(["k7", "b3", "z0"], name)[0].kind is ColumnKind.IDENTIFIER


@pytest.mark.parametrize("name", ["paid", "humid", "idea", "width"])
def test_a_name_that_merely_contains_id_is_no_identifier(name):
    assert infer([11, 47, 902], name)[0].kind is NUMERIC


def test_ten_thousand_categories_stay_categorical_with_a_note():
    column, notes = infer([f"city {i}" for i in range(10_000)] * 2)
    assert column == Column("column", CATEGORICAL, 10_000, 0)
    assert notes == ["column 'column': more than 1,000 categories, most of them rare"]


def test_distinct_and_missing_cells_are_counted_after_cleaning():
    assert infer(["1", "NA", "inf", "2", "2", None])[0] == Column("column", NUMERIC, 2, 3)


@pytest.mark.parametrize(
    ("cells", "note"),
    [
        (["1", "inf", "2"], "infinite numbers are read as missing"),
        ([*map(str, range(100)), "abc"], "mostly numbers; cells that are no number are read as missing"),
        (["1", "?", "2"], "holds numbers, so words such as NA or ? in it are read as missing"),
        (["x", "NA", "y"], "holds words such as NA, None or ? that are kept as categories"),
        (["01/02/2020", "13/02/2020", "01/02/2020"], "day and month could be swapped"),
        ([None, None], "left out, because it is empty"),
        (["x", "x"], "left out, because every row has the same value"),
        ([f"C-{i}" for i in range(40)], "left out, because it tells each row apart like an identifier"),
    ],
)
def test_what_the_reader_should_know_is_noted_with_the_column(cells, note):
    notes = infer_columns(pd.DataFrame({"a": cells}))[1]
    assert any(note in found.text and found.column == "a" for found in notes)


def test_one_note_speaks_of_all_columns_with_the_same_finding():
    notes = infer_columns(pd.DataFrame({name: ["1", "inf", "2"] for name in "abcde"}))[1]
    assert [note.text for note in notes] == ["columns 'a', 'b', 'c' and 2 more: infinite numbers are read as missing"]


def test_notes_stay_short_and_on_one_line_whatever_the_name():
    for name in AWKWARD:
        assert all(len(note) < 150 and note.isprintable() for note in infer(["x", "x"], name)[1])


def test_clean_gives_each_kind_its_form():
    frame = pd.DataFrame(
        {"n": ["1", "inf", "x"], "b": ["yes", "NO", "?"], "d": ["2024-01-31", "x", None], "c": ["u", " v ", ""]}
    )
    kinds = {"c": CATEGORICAL, "n": NUMERIC, "b": BOOLEAN, "d": ColumnKind.DATE}
    cleaned = clean(frame, [Column(name, kind) for name, kind in kinds.items()])
    assert cleaned.dtypes.astype(str).to_dict() == {
        "c": "object",
        "n": "float64",
        "b": "float64",
        "d": "datetime64[ns]",
    }
    assert cleaned["c"].tolist() == ["u", "v", None]
    np.testing.assert_array_equal(cleaned["n"], [1.0, np.nan, np.nan])
    np.testing.assert_array_equal(cleaned["b"], [1.0, 0.0, np.nan])
    assert cleaned["d"].isna().tolist() == [False, True, True]


def test_clean_ignores_other_columns_and_keeps_unseen_categories():
    frame = pd.DataFrame({"other": [1, 2], "c": ["never seen", "u"]}, index=[7, 9])
    cleaned = clean(frame, [Column("c", CATEGORICAL)])
    assert list(cleaned.columns) == ["c"]
    assert cleaned["c"].tolist() == ["never seen", "u"]
    assert cleaned.index.tolist() == [0, 1]


def test_clean_names_the_columns_that_are_missing():
    with pytest.raises(
        DataError, match="must have the columns of the training data, got none named 'b', 'c'; add them"
    ):
        clean(pd.DataFrame({"a": [1]}), [Column(name, NUMERIC) for name in "abc"])


@pytest.mark.parametrize("value", AWKWARD)
def test_any_text_passes_as_a_category_unchanged(value):
    frame = pd.DataFrame({value: [value, "other", value]})
    columns, _ = infer_columns(frame)
    assert columns[0].kind is CATEGORICAL
    assert clean(frame, columns)[value].tolist() == [value, "other", value]


def test_whole_numbers_are_spelled_alike_from_text_and_from_numbers():
    expected = ["1", "2", None]
    assert text(pd.Series(["1", "2", None])).tolist() == expected
    assert text(pd.Series([1.0, 2.0, np.nan])).tolist() == expected
    assert text(pd.Series([1, 2, None], dtype="Int64")).tolist() == expected
    assert text(pd.Series([1, 2.0, None], dtype=object)).tolist() == expected


def test_moments_are_read_in_utc_and_those_beyond_nanoseconds_are_missing():
    cells = pd.Series(["2024-01-01T12:00:00+02:00", "9999-12-31", "0001-01-01", "31.12.2024", "2024-13-01"])
    expected = np.array(["2024-01-01T10:00", "NaT", "NaT", "NaT", "NaT"], dtype="datetime64[ns]")
    np.testing.assert_array_equal(dates(cells), expected)
    np.testing.assert_array_equal(dates(pd.to_datetime(cells[:1])), expected[:1])


def test_numbers_are_not_moments_nor_moments_numbers():
    assert np.isnat(dates(pd.Series([1, 2]))).all()
    assert np.isnan(numbers(pd.Series(pd.to_datetime(["2024-01-01"])))).all()


def test_truth_values_are_read_from_words_and_digits():
    np.testing.assert_array_equal(
        truths(pd.Series(["Yes", "f", "1", "0", "maybe", None])), [1, 0, 1, 0, np.nan, np.nan]
    )


@given(st.lists(st.floats(allow_nan=False), min_size=1))
def test_numbers_read_back_what_python_writes(values):
    np.testing.assert_array_equal(numbers(pd.Series([repr(value) for value in values], dtype=object)), values)


@settings(deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=30), min_size=1))
def test_text_keeps_every_cell_but_its_outer_blanks(cells):
    kept = text(pd.Series(cells, dtype=object))
    assert all(word is None or word == word.strip() for word in kept)
    assert all((word is None) == (cell.strip() in MISSING) for word, cell in zip(kept, cells, strict=True))


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.none()
        | st.text(st.characters(codec="utf-8"), max_size=8)
        | st.sampled_from(["1", "NA", "yes", "2024-01-01"]),
        min_size=1,
    )
)
def test_every_column_has_a_kind_and_a_clean_form(cells):
    frame = pd.DataFrame({"a": pd.Series(cells, dtype=object)})
    columns, _ = infer_columns(frame)
    cleaned = clean(frame, columns)["a"]
    assert len(cleaned) == len(cells)
    assert columns[0].n_missing == cleaned.isna().sum() or columns[0].kind is ColumnKind.EMPTY


@given(st.text(max_size=200))
def test_quoted_text_is_one_short_printable_line(value):
    assert len(quoted(value)) <= 60
    assert quoted(value).isprintable()


def test_long_lists_and_unknown_names_are_told_shortly():
    assert listed(range(5)) == "'0', '1', '2' and 2 more"
    assert suggestion("Incme", ["age", "income"]) == "did you mean 'income'?"
    assert suggestion("zzz", ["age", "x" * 10_000]) == "choose one of 'age'"
