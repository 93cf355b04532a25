"""Preparation of the data: every sequence has one role, and an evaluation sequence never trains."""

import shutil

import pytest
from conftest import TinyData, untracked

from ssvos.config import Config, DataConfig, SourceConfig
from ssvos.data.preparation import prepare, sequences_by_split, source_roots
from ssvos.data.videos import FaultyData
from ssvos.planning.video_counts import count_sources


def roles(table) -> dict[str, set[str]]:
    rows = table.select(["split", "sequence"]).to_pylist()
    return {split: {row["sequence"] for row in rows if row["split"] == split} for split in ("train", "holdout", "val")}


def prepared(data: TinyData, *sources: dict, **changes):
    """The index of DAVIS-layout sources whose root is the embedded data set."""
    root = str(data.roots["embedded"])
    configs = tuple(SourceConfig(**({"name": "a", "layout": "davis", "root": root} | source)) for source in sources)
    config: Config = data.config.model_copy(
        update={"data": data.config.data.model_copy(update={"sources": configs} | changes)}
    )
    return prepare(config, source_roots(config, data.index.parent), untracked)


@pytest.fixture
def lists(tiny_data):
    """A function that adds a list of sequences to the embedded data set until the end of the test."""
    written = []

    def write(name: str, *sequences: str) -> None:
        path = tiny_data.roots["embedded"] / "ImageSets" / "2017" / f"{name}.txt"
        path.write_text("".join(f"{s}\n" for s in sequences))
        written.append(path)

    yield write
    for path in written:
        path.unlink()


def test_every_sequence_has_one_role_and_every_frame_a_row(tiny_data):
    table = prepared(tiny_data, {})
    sequences = roles(table)
    assert sequences["val"] == {"val-000"} and len(sequences["holdout"]) == 1 and len(sequences["train"]) == 2
    assert sequences["train"] | sequences["holdout"] == {"train-000", "train-001", "train-002"}
    assert len(table) == 4 * 6
    assert sequences_by_split(table) == {"train": 2, "holdout": 1, "val": 1}


def test_the_held_out_sequences_depend_on_the_seed(tiny_data):
    held = [tuple(roles(prepared(tiny_data, {}, seed=seed))["holdout"]) for seed in range(6)]
    assert held[0] == tuple(roles(prepared(tiny_data, {}, seed=0))["holdout"]) and len(set(held)) > 1


@pytest.mark.parametrize("overlap", ["inside the training list", "disjoint"])
def test_the_sequences_of_holdout_split_are_held_out(tiny_data, lists, overlap):
    lists("chosen", "train-001")
    lists("rest", "train-000", "train-002", *(["train-001"] if overlap == "inside the training list" else []))
    sequences = roles(prepared(tiny_data, {"train": "rest"}, holdout_split="chosen"))
    assert sequences == {"train": {"train-000", "train-002"}, "holdout": {"train-001"}, "val": {"val-000"}}


def test_an_evaluation_sequence_may_not_train_or_be_held_out(tiny_data, lists):
    lists("leaky", "train-000", "train-001", "val-000")
    with pytest.raises(FaultyData, match="val-000"):
        prepared(tiny_data, {"train": "leaky"})
    with pytest.raises(FaultyData, match="val-000"):
        prepared(tiny_data, {}, holdout_split="leaky")


def test_the_training_list_may_not_be_the_evaluation_list(tiny_data):
    with pytest.raises(FaultyData, match="train"):
        prepared(tiny_data, {"train": "train", "val": "train"})


def test_two_sources_may_not_have_an_evaluation_sequence_of_one_name(tiny_data):
    with pytest.raises(FaultyData, match="val-000"):
        prepared(tiny_data, {"name": "a"}, {"name": "b"})


def test_roots_are_absolute_for_every_source(tiny_data, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    sources = (
        SourceConfig(name="rendered", layout="embedded"),
        SourceConfig(name="davis", layout="davis", root="data/davis"),
    )
    config = tiny_data.config.model_copy(update={"data": tiny_data.config.data.model_copy(update={"sources": sources})})
    roots = source_roots(config, tmp_path / "clips")
    assert roots == {"rendered": tmp_path / "clips", "davis": tmp_path / "data" / "davis"}


TRAINING_ONLY = {"name": "extra", "val": ""}


def counted(data: TinyData, *sources: dict, **changes) -> list[tuple[int, int, int]]:
    root = str(data.roots["embedded"])
    configs = tuple(SourceConfig(**({"name": "a", "layout": "davis", "root": root} | source)) for source in sources)
    data_config = data.config.data.model_copy(update={"sources": configs} | changes)
    return [
        tuple(len(part) for part in (counts.train, counts.holdout, counts.val))
        for counts in count_sources(data.config.model_copy(update={"data": data_config}))
    ]


def roles_of(table, name: str) -> dict[str, set[str]]:
    rows = [row for row in table.select(["dataset", "split", "sequence"]).to_pylist() if row["dataset"] == name]
    return {split: {r["sequence"] for r in rows if r["split"] == split} for split in ("train", "holdout", "val")}


def test_nothing_is_held_out_of_a_training_only_source(tiny_data):
    table = prepared(tiny_data, {}, TRAINING_ONLY)
    sequences = {"train-000", "train-001", "train-002"}
    assert roles_of(table, "extra") == {"train": sequences, "holdout": set(), "val": set()}
    assert roles_of(table, "a") == roles(prepared(tiny_data, {})), "the other source is unchanged"
    assert counted(tiny_data, {}, TRAINING_ONLY) == [(2, 1, 1), (3, 0, 0)]


def test_a_training_only_source_needs_no_held_out_list(tiny_data, lists, tmp_path):
    """It does not need a second video either."""
    lists("chosen", "train-001")
    root = tmp_path / "alone"
    shutil.copytree(tiny_data.roots["embedded"], root)
    (root / "ImageSets" / "2017" / "chosen.txt").unlink()
    (root / "ImageSets" / "2017" / "one.txt").write_text("train-000\n")
    extra = TRAINING_ONLY | {"root": str(root), "train": "one"}
    table = prepared(tiny_data, {}, extra, holdout_split="chosen")
    assert roles_of(table, "extra") == {"train": {"train-000"}, "holdout": set(), "val": set()}
    assert roles_of(table, "a")["holdout"] == {"train-001"}
    assert counted(tiny_data, {}, extra, holdout_split="chosen") == [(2, 1, 1), (1, 0, 0)]


def test_an_embedded_source_can_be_training_only(tiny_data, lists):
    lists("chosen", "train-001")
    rendered = {"name": "rendered", "layout": "embedded", "val": "", "root": ""}
    table = prepared(tiny_data, {}, rendered, holdout_split="chosen")
    assert {split: len(sequences) for split, sequences in roles_of(table, "rendered").items()} == {
        "train": 3,
        "holdout": 0,
        "val": 0,
    }
    assert counted(tiny_data, {}, rendered, holdout_split="chosen")[1] == (3, 0, 0)


def test_at_least_one_source_needs_an_evaluation_list():
    with pytest.raises(ValueError, match="no source has an evaluation list; set val of source extra"):
        DataConfig(name="x", sources=(SourceConfig(**TRAINING_ONLY, layout="davis", root="r"),))
