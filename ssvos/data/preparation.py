"""From the sources of a configuration to one checked index whose rows train, choose (`holdout`) or judge (`val`)."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pyarrow as pa

from ssvos.config import Config, SourceConfig
from ssvos.data.index import hold_out, index_table, index_video, list_videos
from ssvos.data.synthetic.clips import SPLITS, make_dataset
from ssvos.data.videos import FaultyData

Tracked = Callable[[str, int], AbstractContextManager[Callable[[], None]]]


def source_roots(config: Config, embedded: Path, base: Path | None = None) -> dict[str, Path]:
    """Root folder of each source, absolute: workers elsewhere have another working directory.

    embedded: where the project's own clips lie. base: what relative roots count from; the working directory.
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
    """Make the embedded data set if a source asks for it, check every file of every source, and index the frames.

    tracked: `with tracked(what, total) as advance` shows progress.
    Raises FaultyData with every fault found, before anything is written.
    """
    sources = [source.model_copy(update={"root": str(roots[source.name])}) for source in config.data.sources]
    made = [source for source in sources if source.layout == "embedded"]
    for source in made:
        unknown = set(_lists(source, config)) - set(SPLITS)
        if unknown:
            said = f"{source.name} is embedded and has no list {min(unknown)}"
            raise FaultyData([f"data.sources: {said}; it has {' and '.join(SPLITS)}"])
    given = _checked([source for source in sources if source not in made], config, tracked)
    for source in made:
        with tracked("rendering clips", config.synthetic.num_train + config.synthetic.num_val) as advance:
            make_dataset(config.synthetic, roots[source.name], lambda _: advance())
    table = pa.concat_tables([given, _checked(made, config, tracked)])
    place = {source.name: number for number, source in enumerate(sources)}
    datasets = table["dataset"].to_pylist()
    table = table.take(sorted(range(len(table)), key=lambda row: place[datasets[row]]))
    return _with_roles(table, sources, config)


def _checked(sources: list[SourceConfig], config: Config, tracked: Tracked) -> pa.Table:
    """The index of some sources, by the names of their lists."""
    videos, faults = list_videos(sources, {source.name: _lists(source, config) for source in sources})
    with tracked("checking frames", sum(len(video.frames) for _, video in videos)) as advance:
        return index_table([index_video(root, video, advance) for root, video in videos], faults)


def _lists(source: SourceConfig, config: Config) -> list[str]:
    """The lists that are read of a source; one that judges nothing serves training alone."""
    return (
        [name for name in (source.train, config.data.holdout_split, source.val) if name]
        if source.val
        else [source.train]
    )


def _with_roles(table: pa.Table, sources: list[SourceConfig], config: Config) -> pa.Table:
    """Rename the lists to what they are for; without a list of its own the held-out part is drawn from training.

    Nothing is held out of a source that judges nothing.
    """
    rows = table.select(["dataset", "split", "sequence"]).to_pylist()
    role: dict[tuple[str, str, str], str] = {}
    for source in sources:
        own = [row for row in rows if row["dataset"] == source.name]
        names = {
            split: {row["sequence"] for row in own if row["split"] == split} for split in (source.train, source.val)
        }
        if not source.val:
            held = set()
        elif config.data.holdout_split:
            held = {row["sequence"] for row in own if row["split"] == config.data.holdout_split}
            names[source.train] -= held
            if not names[source.train]:
                fault = (
                    f"{source.root}: {config.data.holdout_split} holds all of {source.train}; leave some to train on"
                )
                raise FaultyData([fault])
        else:
            held = hold_out(sorted(names[source.train]), config.data.holdout_fraction, config.data.seed)
        role |= {(source.name, source.val, name): "val" for name in names[source.val]}
        role |= {(source.name, source.train, name): "train" for name in names[source.train] - held}
        chosen_from = config.data.holdout_split or source.train
        role |= {(source.name, chosen_from, name): "holdout" for name in held}
    _require_distinct(role)
    keys = [(row["dataset"], row["split"], row["sequence"]) for row in rows]
    kept = table.filter(pa.array([key in role for key in keys]))
    roles = pa.array([role[key] for key in keys if key in role], pa.string())
    return kept.set_column(kept.schema.get_field_index("split"), "split", roles)


def _require_distinct(role: dict[tuple[str, str, str], str]) -> None:
    """Predictions lie in one folder a judged sequence, whatever its source."""
    judged = [sequence for (_, _, sequence), split in role.items() if split == "val"]
    twice = sorted({name for name in judged if judged.count(name) > 1})
    if twice:
        raise FaultyData([f"{name}: two sources judge a sequence of this name; rename one" for name in twice])


def sequences_by_split(table: pa.Table) -> dict[str, int]:
    """How many sequences train, choose and judge."""
    rows = {tuple(row.values()) for row in table.select(["split", "dataset", "sequence"]).to_pylist()}
    return {name: sum(split == name for split, *_ in rows) for name in ("train", "holdout", "val")}
