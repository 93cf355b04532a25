"""The scribble store: round trip, determinism, and rows from masks and from scribbles drawn by people."""

import pickle

import numpy as np
import pyarrow as pa
import pytest

from ssvos.config import ScribbleConfig
from ssvos.labels import write_labels
from ssvos.scribbles.formats import decode_scribble
from ssvos.scribbles.simulate import scribble_rng, simulate_scribble
from ssvos.scribbles.store import STORE_SCHEMA, read_store, read_store_table, scribble_row, write_store

CONFIG = ScribbleConfig(seed=3)


def index_row(sequence: str, frame: str, mask_path: str | None, scribble_path: str | None = None) -> dict:
    return {
        "dataset": "set",
        "split": "train",
        "sequence": sequence,
        "frame": frame,
        "image_path": f"{sequence}/{frame}.jpg",
        "mask_path": mask_path,
        "scribble_path": scribble_path,
    }


def make_mask(shift: int = 0) -> np.ndarray:
    mask = np.zeros((60, 90), dtype=np.uint8)
    mask[20:40, 20 + shift : 60 + shift] = 1
    mask[10:15, 5:15] = 2
    return mask


@pytest.fixture
def rows(tmp_path):
    rows = []
    for idx in range(7):
        sequence, frame = ("b", "a")[idx % 2], f"{idx:05d}"
        write_labels(tmp_path / sequence / f"{frame}.png", make_mask(idx))
        rows.append(scribble_row(index_row(sequence, frame, f"{sequence}/{frame}.png"), tmp_path, CONFIG))
    return rows


def table_of(rows: list[dict]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=STORE_SCHEMA)


def test_a_stored_scribble_equals_the_simulated_scribble(tmp_path, rows):
    write_store(table_of(rows), tmp_path / "s.parquet")
    store = read_store(tmp_path / "s.parquet")
    expected = simulate_scribble(make_mask(4), scribble_rng(3, "b", "00004"), CONFIG)
    np.testing.assert_array_equal(store["set", "b", "00004"], expected)
    assert len(store) == 7 and ("set", "b", "00001") not in store


def test_the_file_does_not_depend_on_order_chunks_or_metadata(tmp_path, rows):
    write_store(table_of(rows), tmp_path / "one.parquet")
    pieces = [table_of([row]) for row in reversed(rows)]
    shuffled = pa.concat_tables(pieces).replace_schema_metadata({"pandas": "x"})
    write_store(shuffled, tmp_path / "two.parquet")
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()


def test_a_folder_of_shards_reads_as_one_store_and_survives_pickling(tmp_path, rows):
    write_store(table_of(rows[:3]), tmp_path / "shards" / "0.parquet")
    write_store(table_of(rows[3:]), tmp_path / "shards" / "1.parquet")
    store = pickle.loads(pickle.dumps(read_store(tmp_path / "shards")))
    assert sorted(store) == sorted(("set", row["sequence"], row["frame"]) for row in rows)
    for row in rows:
        np.testing.assert_array_equal(store["set", row["sequence"], row["frame"]], decode_scribble(row["png"]))


def test_shares_and_counts_of_a_row_match_its_labels(rows):
    for row in rows:
        labels = decode_scribble(row["png"])
        assert row["coverage"] == (labels != 255).mean()
        assert row["foreground"] == ((labels > 0) & (labels < 255)).mean()
        assert row["objects"] == [1, 2] and row["seed"] == 3
        assert (row["num_components"], row["num_bare_components"], row["num_misplaced"]) == (2, 0, 0)


def test_a_drawn_scribble_takes_precedence_over_the_mask(tmp_path):
    drawn = np.full((60, 90), 255, dtype=np.uint8)
    drawn[25, 30:40], drawn[0, 0], drawn[50, 50] = 1, 0, 1  # the last pixel contradicts the mask
    write_labels(tmp_path / "m.png", make_mask())
    write_labels(tmp_path / "s.png", drawn)
    row = scribble_row(index_row("a", "0", "m.png", "s.png"), tmp_path, CONFIG)
    np.testing.assert_array_equal(decode_scribble(row["png"]), drawn)
    assert row["seed"] is None
    assert (row["num_components"], row["num_bare_components"], row["num_misplaced"]) == (2, 1, 1)


def test_a_row_with_a_drawn_scribble_needs_no_mask(tmp_path):
    write_labels(tmp_path / "s.png", np.array([[255, 1, 0]], dtype=np.uint8))
    row = scribble_row(index_row("a", "0", None, "s.png"), tmp_path, CONFIG)
    assert row["num_components"] is None and row["foreground"] == 1 / 3


def test_an_unlabelled_frame_is_rejected_by_name(tmp_path):
    with pytest.raises(ValueError, match=r"a/0\.jpg"):
        scribble_row(index_row("a", "0", None), tmp_path, CONFIG)


def test_a_missing_or_invalid_store_is_rejected_by_name(tmp_path):
    with pytest.raises(FileNotFoundError, match="none"):
        read_store_table(tmp_path / "none")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(ValueError, match=r"bad\.parquet"):
        read_store_table(tmp_path / "bad.parquet")
