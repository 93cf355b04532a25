"""The paper's tables as data: they equal the print, and their faults are reported."""

from collections.abc import Iterator

import pytest
from printed_tables import (
    DAVIS_COLUMNS,
    NUM_UNSUPERVISED,
    TABLE_II,
    TABLE_II_BASE,
    TABLE_II_ROWS,
    TABLE_III,
    TABLE_IV,
    TABLE_V,
    TABLE_VI,
    TABLE_VII,
    YOUTUBE_VOS_COLUMNS,
)

from ssvos.metrics.tables import read_benchmark, read_published_clips, read_table, verdict_beside


def number(text: str) -> float | None:
    return None if text == "–" else float(text)


def test_table_ii_equals_the_print():
    table = read_table("II")
    base, *rows = table.rows.values()
    assert list(table.rows) == ["base", *TABLE_II_ROWS] and table.columns == ("G",)
    assert base.sets == TABLE_II_BASE and base.values == {"G": 51.1} and base.group == ""
    for row, line in zip(rows, TABLE_II.split("\n")[1:-1], strict=True):
        group, symbol, value, score = line.split()
        assert (row.group, row.sets, row.values) == (group, {symbol: float(value)}, {"G": float(score)})


def test_table_iii_equals_the_print():
    table = read_table("III")
    assert table.columns == YOUTUBE_VOS_COLUMNS
    assert {name: tuple(row.values.values()) for name, row in table.rows.items()} == TABLE_III
    assert list(table.rows) == list(TABLE_III)
    ideas = {" ".join(row.ideas[1:]) for row in table.rows.values()}
    assert ideas == {"", "SA", "PSA", "NL", "CCA", "SS", "DCRF", "SA SS"}


@pytest.mark.parametrize(("number_", "printed"), [("IV", TABLE_IV), ("V", TABLE_V)], ids=["IV", "V"])
def test_tables_iv_and_v_equal_the_print(number_, printed):
    table = read_table(number_)
    assert table.columns == YOUTUBE_VOS_COLUMNS and not table.is_transposed
    for row, line in zip(table.rows.values(), printed.strip().splitlines(), strict=True):
        name, *cells = line.split()
        assert row.method == name and tuple(row.values.values()) == tuple(number(text) for text in cells[-5:])
        assert row.reference == (int(cells[0].strip("[]")) if cells[0].startswith("[") else None)
        assert row.online == ("✓" in cells if number_ == "IV" else None)
        published_kind = "unsupervised" if number_ == "V" else "semi-supervised"
        assert row.kind == ("scribble-supervised" if name == "Ours" else published_kind)


@pytest.mark.parametrize(("number_", "printed"), [("VI", TABLE_VI), ("VII", TABLE_VII)], ids=["VI", "VII"])
def test_tables_vi_and_vii_equal_the_print_measure_by_measure(number_, printed):
    table = read_table(number_)
    names, references, *measures = (line.split() for line in printed.strip().splitlines())
    rows = list(table.rows.values())
    assert table.is_transposed and [row.method for row in rows] == names
    assert [row.reference for row in rows[1:]] == [int(text.strip("[]")) for text in references[1:]]
    assert table.columns == tuple(line[0] for line in measures) == DAVIS_COLUMNS
    for measure, *values in measures:
        assert list(table.column(measure).values()) == [number(text) for text in values], measure
    count = NUM_UNSUPERVISED[number_]
    assert [row.kind for row in rows[1:]] == ["unsupervised"] * count + ["semi-supervised"] * (12 - count)


def overall_scores_and_means() -> Iterator[tuple[str, str, float, float]]:
    """(table, row, printed overall score, mean of its printed parts)."""
    for table in ("III", "IV", "V", "VI", "VII"):
        for name, row in read_table(table).rows.items():
            overall, parts = ("G", YOUTUBE_VOS_COLUMNS[:4]) if "G" in row.values else ("J&F-Mean", ("J-Mean", "F-Mean"))
            values = [row.values[part] for part in parts]
            if None not in values:
                yield table, name, row.values[overall], sum(values) / len(values)


def test_overall_score_is_the_mean_of_its_parts_except_for_one_slip():
    scores = list(overall_scores_and_means())
    assert len(scores) == 8 + 10 + 2 + 13 + 13
    wrong = {(table, name) for table, name, overall, mean in scores if abs(mean - overall) > 0.05 + 1e-9}
    assert wrong == {("VI", "OSMN")}
    assert "J&F-Mean" in read_table("VI").rows["OSMN"].slip


def test_f_decay_is_near_j_decay_except_for_one_slip():
    rows = [(table, name, row) for table in ("VI", "VII") for name, row in read_table(table).rows.items()]
    known = [(table, name, row.values) for table, name, row in rows if row.values["J-Decay"] is not None]
    wrong = {(table, name) for table, name, one in known if abs(one["F-Decay"] - one["J-Decay"]) > 5}
    assert wrong == {("VI", "PDB")} and read_table("VI").rows["PDB"].slip == ("F-Decay",)


def test_slips_are_described_and_their_values_are_as_printed():
    first, second = (read_table("IV").rows[name].values for name in ("S2S(+OL)", "S2S"))
    assert sorted(first.values()) == sorted(second.values()) and first != second
    assert (second["J_unseen"], second["F_seen"]) == (first["F_seen"], first["J_unseen"])
    assert read_table("IV").rows["S2S"].slip == ("J_unseen", "F_seen")
    words = {"III": "3.46", "IV": "S2S", "V": "zero-shot", "VI": "54.8", "VII": "MuG-W"}
    for table, word in words.items():
        assert word in " ".join(read_table(table).slips), table
    kinds = [read_table("VI").rows["MUG-W"].kind, read_table("VII").rows["MuG-W"].kind]
    assert kinds == ["semi-supervised", "unsupervised"] and "MUG-W" in " ".join(read_table("VI").slips)


def test_benchmarks_have_their_published_sizes():
    val, dev = (read_benchmark(read_table(table)) for table in ("VI", "VII"))
    assert (len(set(val.sequences)), val.num_objects) == (30, 61)
    assert (len(set(dev.sequences)), dev.num_objects) == (30, 89)
    assert not set(val.sequences) & set(dev.sequences)
    assert read_benchmark(read_table("IV")).releases == {"2018": 474, "2019": 507}


def test_published_clips_are_in_davis_2017_val_and_their_means_are_the_published_ones():
    methods = read_published_clips()
    assert len(methods) == 13 and all(len(clips) == 14 for clips in methods.values())
    assert set(methods["STM"]) <= set(read_benchmark(read_table("VI")).sequences)
    means = {"STM": 88.4, "A-GAME": 81.4, "OSVOS": 79.1, "OSMN": 71.2, "OFL": 61.4, "TSP": 31.8}
    for name, expected in means.items():
        assert sum(J + F for J, F in methods[name].values()) / 28 == pytest.approx(expected, abs=0.05)


# (keys of a table, keys of its only row, message)
FAULTS = [
    ("columns: [J, F]", "ideas: [x]", "row a has values for J; give J, F"),
    ("columns: [J]", "", "a row has one of ideas, sets and method; give one"),
    ("columns: [J]", "ideas: [x], sets: {beta: 0.1}", "a row has one of ideas, sets and method; give one"),
    ("columns: [J]", "method: M", "a row has a method and its kind, or neither; give both"),
    ("columns: [J]", "ideas: [x], slip: [F]", "row a has a slip in F; choose of J"),
    ("columns: [J], benchmark: b", "ideas: [x]", "table I is of b; name it under benchmarks"),
]


@pytest.mark.parametrize(("table", "row", "message"), FAULTS)
def test_faulty_tables_file_is_an_error_of_one_line(tmp_path, table, row, message):
    path = tmp_path / "tables.yaml"
    row = ", ".join(filter(None, [row, "values: {J: 1.0}"]))
    path.write_text(f"tables: {{I: {{title: t, data: d, {table}, rows: {{a: {{{row}}}}}}}}}")
    with pytest.raises(ValueError, match=r"tables\.yaml: ") as caught:
        read_table("I", path)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_unknown_table_is_an_error_that_lists_the_tables():
    with pytest.raises(ValueError, match="no table XI; choose one of II, III, IV, V, VI, VII"):
        read_table("XI")


# Student's t at 0.975 with 2 degrees of freedom is 4.303; three seeds with deviation 1: 4.303 * sqrt(4/3) + 0.05 = 5.02
VERDICTS = [
    (50.0, [49.0, 50.0], "no verdict: fewer than three seeds"),
    (50.0, [49.0, 50.0, 51.0], "agrees: within 50.0 ± 5.0"),
    (55.01, [49.0, 50.0, 51.0], "agrees: within 50.0 ± 5.0"),
    (55.03, [49.0, 50.0, 51.0], "differs: outside 50.0 ± 5.0"),
    (44.97, [49.0, 50.0, 51.0], "differs: outside 50.0 ± 5.0"),
    (50.05, [50.0, 50.0, 50.0], "agrees: within 50.0 ± 0.1"),
    (50.1, [50.0, 50.0, 50.0], "differs: outside 50.0 ± 0.1"),
]


@pytest.mark.parametrize(("published", "scores", "verdict"), VERDICTS)
def test_printed_value_agrees_within_the_interval_of_one_more_seed(published, scores, verdict):
    assert verdict_beside(published, scores) == verdict
