"""A validation set with unseen categories, held out of YouTube-VOS's training set, whose own has no public masks."""

import hashlib
import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ssvos.files import require_writable
from ssvos.metrics.youtube_vos import read_meta

_LINKED = ("JPEGImages", "Annotations", "Scribbles")


@dataclass(frozen=True)
class CategorySplit:
    """Videos to train on, and held-out ones: without a category that training lacks, and with one. Each sorted.

    seen, unseen: the categories; `unseen` ones occur in no training video
    """

    train: tuple[str, ...]
    valid_seen: tuple[str, ...]
    valid_unseen: tuple[str, ...]
    seen: tuple[str, ...]
    unseen: tuple[str, ...]

    @property
    def valid(self) -> tuple[str, ...]:
        """All held-out videos."""
        return tuple(sorted((*self.valid_seen, *self.valid_unseen)))


def split_by_category(
    categories_of: Mapping[str, frozenset[str]], unseen_share: float, val_share: float, seed: int
) -> CategorySplit:
    """Draw unseen categories, then held-out videos of the others; the same whatever the order of the mapping.

    categories_of: video -> the categories of its objects
    unseen_share:  of the categories, rounded. All their videos are held out, which should be no more than this share
                   of the videos: one that is nearly everywhere is passed over. Where these are too few, the smallest
                   of the others follow, as long as half of the videos are left
    val_share:     of the videos that are left, rounded; each seen category keeps a video to train on
    Raises ValueError where there is nothing to draw from. Both shares are between 0 and 1.
    """
    categories = {category for found in categories_of.values() for category in found}
    if len(categories) < 2:
        raise ValueError(f"too few categories, {len(categories)}; at least 2 are needed, one of them to hold out")
    unseen = _draw_categories(categories_of, categories, unseen_share, seed)
    valid_unseen = {video for video, found in categories_of.items() if found & unseen}
    rest = {video: found for video, found in categories_of.items() if video not in valid_unseen}
    valid_seen = _draw_videos(rest, val_share, seed)
    return CategorySplit(
        *(tuple(sorted(names)) for names in (rest.keys() - valid_seen, valid_seen, valid_unseen)),
        *(tuple(sorted(names)) for names in (categories - unseen, unseen)),
    )


def _draw_categories(
    categories_of: Mapping[str, frozenset[str]], categories: set[str], share: float, seed: int
) -> set[str]:
    most = max(1, round(share * len(categories)))
    unseen: set[str] = set()
    shuffled = _shuffled(categories, seed)
    num_videos = Counter(category for found in categories_of.values() for category in found)
    for order, most_videos in ((shuffled, share), (sorted(shuffled, key=num_videos.get), max(share, 0.5))):
        for category in order:
            left = [found for found in categories_of.values() if not found & (unseen | {category})]
            # a category that stands beside this one alone would be unseen as well
            lost = categories.difference(*left)
            if len(lost) <= most and len(categories_of) - len(left) <= most_videos * len(categories_of):
                unseen |= lost
    if not unseen:
        raise ValueError("no category leaves half of the videos to train on; raise --unseen-share, or add videos")
    return unseen


def _draw_videos(categories_of: Mapping[str, frozenset[str]], share: float, seed: int) -> set[str]:
    wanted = max(1, round(share * len(categories_of)))
    num_left = Counter(category for found in categories_of.values() for category in found)
    drawn: set[str] = set()
    for video in _shuffled(categories_of, seed):
        found = categories_of[video]
        if len(drawn) < wanted and found and all(num_left[category] > 1 for category in found):
            drawn.add(video)
            num_left.subtract(found)
    if not drawn:
        raise ValueError(
            "each video is the last of a seen category, none can be held out; lower --unseen-share, or add videos"
        )
    return drawn


def _shuffled(names: Iterable[str], seed: int) -> list[str]:
    return sorted(names, key=lambda name: hashlib.sha256(f"{seed}\n{name}".encode()).hexdigest())


def write_split(meta: Path, out: Path, unseen_share: float, val_share: float, seed: int) -> CategorySplit:
    """Split the videos of a meta.json into a data set of its own, written whole or not at all.

    `out` gets `train` and `valid`, each with its meta.json and with links to the videos' folders that lie beside
    `meta`, so that it is a folder in YouTube-VOS's layout; train.txt and valid.txt, a video a line; and split.json.
    Raises FileNotFoundError or ValueError, which name `meta`, and FileExistsError where `out` is there already.
    """
    meta, out = Path(meta), Path(out)
    for name, share in (("unseen", unseen_share), ("val", val_share)):
        if not 0 < share < 1:
            raise ValueError(f"--{name}-share {share:g}: is no share; give a number between 0 and 1")
    categories_of = {name: frozenset(item.category for item in items) for name, items in read_meta(meta).items()}
    strange = next((name for name in sorted(categories_of) if "/" in name or name in ("", ".", "..")), None)
    if strange is not None:
        raise ValueError(f"{meta}: {strange!r} is no video; take the meta.json released with the videos")
    if out.exists() or out.is_symlink():
        raise FileExistsError(f"{out}: is there already; choose another folder, or remove it")
    require_writable(out)
    try:
        split = split_by_category(categories_of, unseen_share, val_share, seed)
    except ValueError as error:
        raise ValueError(f"{meta}: {error}") from error
    entries = json.loads(meta.read_text(encoding="utf-8"))["videos"]
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as temporary:
        made = Path(temporary) / out.name
        for name, videos in (("train", split.train), ("valid", split.valid)):
            _write_list(made, name, {video: entries[video] for video in videos}, meta.parent.resolve())
        about = {"seed": seed, "unseen_share": unseen_share, "val_share": val_share}
        about |= {"seen": split.seen, "unseen": split.unseen}
        about |= {"valid_seen": split.valid_seen, "valid_unseen": split.valid_unseen}
        _write_json(made / "split.json", about)
        os.rename(made, out)
    return split


def _write_list(root: Path, name: str, entries: Mapping[str, dict], source: Path) -> None:
    """The list's meta.json and text file, and links to what lies in `source` of its videos."""
    (root / name).mkdir(parents=True)
    _write_json(root / name / "meta.json", {"videos": entries})
    (root / f"{name}.txt").write_text("".join(f"{video}\n" for video in entries), encoding="utf-8")
    for kind in _LINKED:
        if (source / kind).is_dir():
            (root / name / kind).mkdir()
            for video in entries:
                if (source / kind / video).is_dir():
                    (root / name / kind / video).symlink_to(source / kind / video, target_is_directory=True)


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
