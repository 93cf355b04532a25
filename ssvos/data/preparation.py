"""Preparation of the data: one checked index of all sources, whose splits are `train`, `holdout` and `val`."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pyarrow as pa

from ssvos.config import Config, SourceConfig
from ssvos.data.index import hold_out, index_table, list_videos
from ssvos.data.synthetic.clips import SPLITS, make_dataset
from ssvos.data.validation import index_video
from ssvos.data.videos import FaultyData

Tracked = Callable[[str, int], AbstractContextManager[Callable[[], None]]]


def source_roots(config: Config, embedded: Path, base: Path | None = None) -> dict[str, Path]:
    """The absolute root folder of each source; workers on other machines have other working directories.

    config: the parameters
    embedded: folder of the embedded data set
    base: folder that relative roots start from; None: the working directory
    returns: source name -> root
    Raises ValueError for a source that needs a root and has none.
    """
    base = (base or Path()).absolute()
    for source in config.data.sources:
        if source.layout != "embedded" and not source.root:
            raise ValueError(f"data.sources: {source.name} has no root; set it to the folder of its videos")
    return {
        source.name: embedded.absolute() if source.layout == "embedded" else base / Path(source.root).expanduser()
        for source in config.data.sources
    }


def prepare(config: Config, roots: dict[str, Path], tracked: Tracked) -> pa.Table:
    """Check and index all frames of all sources, and render the embedded data set if a source uses it.

    config: the parameters
    roots: source name -> root (`source_roots`)
    tracked: shows progress: `with tracked(title, total) as advance`
    returns: a table with INDEX_SCHEMA, whose splits are `train`, `holdout` and `val`
    Raises FaultyData with all faults of the external sources before anything is rendered.
    """
    sources = [source.model_copy(update={"root": str(roots[source.name])}) for source in config.data.sources]
    embedded = [source for source in sources if source.layout == "embedded"]
    for source in embedded:
        unknown = set(_lists(source, config)) - set(SPLITS)
        if unknown:
            message = f"{source.name} is embedded and has no list {min(unknown)}; use {' or '.join(SPLITS)}"
            raise FaultyData([f"data.sources: {message}"])
    external = _index([source for source in sources if source not in embedded], config, tracked)
    for source in embedded:
        with tracked("rendering clips", config.synthetic.num_train + config.synthetic.num_val) as advance:
            make_dataset(config.synthetic, roots[source.name], lambda _: advance())
    table = pa.concat_tables([external, _index(embedded, config, tracked)])
    order = {source.name: number for number, source in enumerate(sources)}
    datasets = table["dataset"].to_pylist()
    table = table.take(sorted(range(len(table)), key=lambda row: order[datasets[row]]))
    return _with_roles(table, sources, config)


def _index(sources: list[SourceConfig], config: Config, tracked: Tracked) -> pa.Table:
    """The index of some sources; its splits are the names of their lists."""
    videos, faults = list_videos(sources, {source.name: _lists(source, config) for source in sources})
    with tracked("checking frames", sum(len(video.frames) for _, video in videos)) as advance:
        return index_table([index_video(root, video, advance) for root, video in videos], faults)


def _lists(source: SourceConfig, config: Config) -> list[str]:
    """The lists to read from a source; without an evaluation list, only the training list."""
    return (
        [name for name in (source.train, config.data.holdout_split, source.val) if name]
        if source.val
        else [source.train]
    )


def _with_roles(table: pa.Table, sources: list[SourceConfig], config: Config) -> pa.Table:
    """Replace the names of lists by roles. Without `holdout_split`, held-out sequences are chosen from training.

    Nothing is held out of a source without an evaluation list.
    """
    rows = table.select(["dataset", "split", "sequence"]).to_pylist()
    role: dict[tuple[str, str, str], str] = {}
    for source in sources:
        by_list: dict[str, set[str]] = {source.train: set(), source.val: set(), config.data.holdout_split: set()}
        for row in rows:
            if row["dataset"] == source.name and row["split"] in by_list:
                by_list[row["split"]].add(row["sequence"])
        train, held_out = by_list[source.train], set()
        if source.val and config.data.holdout_split:
            held_out = by_list[config.data.holdout_split]
            if train <= held_out:
                message = f"{config.data.holdout_split} contains all of {source.train}; leave some to train on"
                raise FaultyData([f"{source.root}: {message}"])
        elif source.val:
            held_out = hold_out(sorted(train), config.data.holdout_fraction, config.data.seed)
        role |= {(source.name, source.val, name): "val" for name in by_list[source.val]}
        role |= {(source.name, source.train, name): "train" for name in train - held_out}
        held_out_list = config.data.holdout_split or source.train
        role |= {(source.name, held_out_list, name): "holdout" for name in held_out}
    _require_distinct(role)
    keys = [(row["dataset"], row["split"], row["sequence"]) for row in rows]
    table = table.filter(pa.array([key in role for key in keys]))
    roles = pa.array([role[key] for key in keys if key in role], pa.string())
    return table.set_column(table.schema.get_field_index("split"), "split", roles)


def _require_distinct(role: dict[tuple[str, str, str], str]) -> None:
    """Raise FaultyData if two sources evaluate a sequence of one name: predictions have one folder per sequence."""
    evaluation = [sequence for (_, _, sequence), split in role.items() if split == "val"]
    repeated = sorted({name for name in evaluation if evaluation.count(name) > 1})
    if repeated:
        raise FaultyData(
            [f"{name}: two sources have an evaluation sequence of this name; rename one" for name in repeated]
        )


def sequences_by_split(table: pa.Table) -> dict[str, int]:
    """The number of sequences in each of the splits `train`, `holdout` and `val`."""
    rows = {tuple(row.values()) for row in table.select(["split", "dataset", "sequence"]).to_pylist()}
    return {name: sum(split == name for split, *_ in rows) for name in ("train", "holdout", "val")}
