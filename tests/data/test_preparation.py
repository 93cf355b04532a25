"""Preparing the data: every sequence has one role, and what judges never trains."""

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
    """Index of DAVIS-layout sources that all lie where the embedded data set was rendered."""
    root = str(data.roots["embedded"])
    made = tuple(SourceConfig(**({"name": "a", "layout": "davis", "root": root} | source)) for source in sources)
    config: Config = data.config.model_copy(
        update={"data": data.config.data.model_copy(update={"sources": made} | changes)}
    )
    return prepare(config, source_roots(config, data.index.parent), untracked)


@pytest.fixture
def lists(tiny_data):
    """Writes a list of sequences beside the embedded ones; it is gone after the test."""
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
    found = roles(table)
    assert found["val"] == {"val-000"} and len(found["holdout"]) == 1 and len(found["train"]) == 2
    assert found["train"] | found["holdout"] == {"train-000", "train-001", "train-002"}
    assert len(table) == 4 * 6
    assert sequences_by_split(table) == {"train": 2, "holdout": 1, "val": 1}


def test_the_seed_decides_what_is_held_out(tiny_data):
    held = [tuple(roles(prepared(tiny_data, {}, seed=seed))["holdout"]) for seed in range(6)]
    assert held[0] == tuple(roles(prepared(tiny_data, {}, seed=0))["holdout"]) and len(set(held)) > 1


@pytest.mark.parametrize("own", ["inside", "apart"])
def test_a_list_of_its_own_is_held_out_of_training(tiny_data, lists, own):
    lists("chosen", "train-001")
    lists("rest", "train-000", "train-002", *(["train-001"] if own == "inside" else []))
    found = roles(prepared(tiny_data, {"train": "rest"}, holdout_split="chosen"))
    assert found == {"train": {"train-000", "train-002"}, "holdout": {"train-001"}, "val": {"val-000"}}


def test_a_judged_sequence_may_not_train_or_choose(tiny_data, lists):
    lists("leaky", "train-000", "train-001", "val-000")
    with pytest.raises(FaultyData, match="val-000"):
        prepared(tiny_data, {"train": "leaky"})
    with pytest.raises(FaultyData, match="val-000"):
        prepared(tiny_data, {}, holdout_split="leaky")


def test_one_list_may_not_both_train_and_judge(tiny_data):
    with pytest.raises(FaultyData, match="train"):
        prepared(tiny_data, {"train": "train", "val": "train"})


def test_two_sources_may_not_judge_sequences_of_one_name(tiny_data):
    with pytest.raises(FaultyData, match="val-000"):
        prepared(tiny_data, {"name": "a"}, {"name": "b"})


def test_roots_are_absolute_whatever_the_source(tiny_data, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    sources = (
        SourceConfig(name="made", layout="embedded"),
        SourceConfig(name="given", layout="davis", root="data/davis"),
    )
    config = tiny_data.config.model_copy(update={"data": tiny_data.config.data.model_copy(update={"sources": sources})})
    found = source_roots(config, tmp_path / "made-here")
    assert found == {"made": tmp_path / "made-here", "given": tmp_path / "data" / "davis"}


ALONE = {"name": "extra", "val": ""}  # trains alone


def counted(data: TinyData, *sources: dict, **changes) -> list[tuple[int, int, int]]:
    root = str(data.roots["embedded"])
    made = tuple(SourceConfig(**({"name": "a", "layout": "davis", "root": root} | source)) for source in sources)
    found = data.config.data.model_copy(update={"sources": made} | changes)
    return [
        tuple(len(part) for part in (counts.train, counts.holdout, counts.val))
        for counts in count_sources(data.config.model_copy(update={"data": found}))
    ]


def roles_of(table, name: str) -> dict[str, set[str]]:
    rows = [row for row in table.select(["dataset", "split", "sequence"]).to_pylist() if row["dataset"] == name]
    return {split: {r["sequence"] for r in rows if r["split"] == split} for split in ("train", "holdout", "val")}


def test_a_source_that_judges_nothing_trains_whole(tiny_data):
    table = prepared(tiny_data, {}, ALONE)
    every = {"train-000", "train-001", "train-002"}
    assert roles_of(table, "extra") == {"train": every, "holdout": set(), "val": set()}
    assert roles_of(table, "a") == roles(prepared(tiny_data, {})), "the other source is as it was"
    assert counted(tiny_data, {}, ALONE) == [(2, 1, 1), (3, 0, 0)]


def test_a_source_that_trains_alone_needs_no_held_out_list(tiny_data, lists, tmp_path):
    """Not even a second video, of which one could be held out."""
    lists("chosen", "train-001")
    root = tmp_path / "alone"
    shutil.copytree(tiny_data.roots["embedded"], root)
    (root / "ImageSets" / "2017" / "chosen.txt").unlink()
    (root / "ImageSets" / "2017" / "one.txt").write_text("train-000\n")
    extra = ALONE | {"root": str(root), "train": "one"}
    table = prepared(tiny_data, {}, extra, holdout_split="chosen")
    assert roles_of(table, "extra") == {"train": {"train-000"}, "holdout": set(), "val": set()}
    assert roles_of(table, "a")["holdout"] == {"train-001"}
    assert counted(tiny_data, {}, extra, holdout_split="chosen") == [(2, 1, 1), (1, 0, 0)]


def test_rendered_clips_may_train_alone(tiny_data, lists):
    lists("chosen", "train-001")
    rendered = {"name": "made", "layout": "embedded", "val": "", "root": ""}
    table = prepared(tiny_data, {}, rendered, holdout_split="chosen")
    assert {split: len(found) for split, found in roles_of(table, "made").items()} == {
        "train": 3,
        "holdout": 0,
        "val": 0,
    }
    assert counted(tiny_data, {}, rendered, holdout_split="chosen")[1] == (3, 0, 0)


def test_some_source_must_judge():
    with pytest.raises(ValueError, match="no source has a list to judge, so none is held out; name val of extra"):
        DataConfig(name="x", sources=(SourceConfig(**ALONE, layout="davis", root="r"),))
