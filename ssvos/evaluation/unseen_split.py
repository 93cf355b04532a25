"""`ssvos split`: a validation set with unseen categories from YouTube-VOS's training set.

YouTube-VOS's own validation set has no public masks.
"""

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
    """Training videos, held-out videos and categories, each sorted.

    train: the training videos.
    valid_seen: the held-out videos without an unseen category.
    valid_unseen: the held-out videos with one.
    seen: the categories of the training videos.
    unseen: the categories that occur in no training video.
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
    """Draw the unseen categories, then the held-out videos with seen categories. The order of the mapping does not
    change the result.

    categories_of: video -> the categories of its objects.
    unseen_share: share of the categories that become unseen, rounded, between 0 and 1. All their videos are held out,
        preferably at most this share of the videos: a category that would exceed it is skipped. If too few categories
        are left, those with the fewest videos follow, as long as half of the videos remain for training.
    val_share: share of the remaining videos that are held out, rounded, between 0 and 1. Each seen category keeps a
        training video.
    Raises ValueError if no category or no video can be held out.
    """
    categories = {category for own in categories_of.values() for category in own}
    if len(categories) < 2:
        raise ValueError(f"too few categories, {len(categories)}; at least 2 are needed, one of them to hold out")
    unseen = _draw_categories(categories_of, categories, unseen_share, seed)
    valid_unseen = {video for video, own in categories_of.items() if own & unseen}
    rest = {video: own for video, own in categories_of.items() if video not in valid_unseen}
    valid_seen = _draw_videos(rest, val_share, seed)
    return CategorySplit(
        *(tuple(sorted(names)) for names in (rest.keys() - valid_seen, valid_seen, valid_unseen)),
        *(tuple(sorted(names)) for names in (categories - unseen, unseen)),
    )


def _draw_categories(
    categories_of: Mapping[str, frozenset[str]], categories: set[str], share: float, seed: int
) -> set[str]:
    limit = max(1, round(share * len(categories)))
    unseen: set[str] = set()
    shuffled = _shuffled(categories, seed)
    num_videos = Counter(category for own in categories_of.values() for category in own)
    by_size = sorted(shuffled, key=lambda category: num_videos[category])
    for order, largest_share in ((shuffled, share), (by_size, max(share, 0.5))):
        for category in order:
            remaining = [own for own in categories_of.values() if not own & (unseen | {category})]
            # a category that occurs only together with this one becomes unseen as well
            lost = categories.difference(*remaining)
            num_held_out = len(categories_of) - len(remaining)
            if len(lost) <= limit and num_held_out <= largest_share * len(categories_of):
                unseen |= lost
    if not unseen:
        raise ValueError(
            "holding out any category leaves less than half of the videos for training; "
            "raise --unseen-share, or add videos"
        )
    return unseen


def _draw_videos(categories_of: Mapping[str, frozenset[str]], share: float, seed: int) -> set[str]:
    count = max(1, round(share * len(categories_of)))
    num_left = Counter(category for own in categories_of.values() for category in own)
    drawn: set[str] = set()
    for video in _shuffled(categories_of, seed):
        own = categories_of[video]
        if len(drawn) < count and own and all(num_left[category] > 1 for category in own):
            drawn.add(video)
            num_left.subtract(own)
    if not drawn:
        raise ValueError(
            "every video is the only one of a seen category, so none can be held out; "
            "lower --unseen-share, or add videos"
        )
    return drawn


def _shuffled(names: Iterable[str], seed: int) -> list[str]:
    return sorted(names, key=lambda name: hashlib.sha256(f"{seed}\n{name}".encode()).hexdigest())


def write_split(meta: Path, out: Path, unseen_share: float, val_share: float, seed: int) -> CategorySplit:
    """Split the videos of a meta.json and write a new data set in YouTube-VOS's layout, completely or not at all.

    meta: YouTube-VOS's train/meta.json, next to the folders of frames and masks.
    out: a new folder. It gets `train` and `valid`, each with a meta.json and links to the folders of its videos;
        train.txt and valid.txt with one video per line; and split.json with the categories.
    unseen_share, val_share, seed: as in `split_by_category`.
    Raises FileNotFoundError or ValueError for a faulty `meta`, and FileExistsError if `out` exists.
    """
    meta, out = Path(meta), Path(out)
    for name, share in (("unseen", unseen_share), ("val", val_share)):
        if not 0 < share < 1:
            raise ValueError(f"--{name}-share {share:g}: is not a share; give a number between 0 and 1")
    categories_of = {name: frozenset(item.category for item in items) for name, items in read_meta(meta).items()}
    invalid = next((name for name in sorted(categories_of) if "/" in name or name in ("", ".", "..")), None)
    if invalid is not None:
        raise ValueError(f"{meta}: {invalid!r} is not the name of a video; use the meta.json released with the videos")
    if out.exists() or out.is_symlink():
        raise FileExistsError(f"{out}: exists already; choose another folder, or remove it")
    require_writable(out)
    try:
        split = split_by_category(categories_of, unseen_share, val_share, seed)
    except ValueError as error:
        raise ValueError(f"{meta}: {error}") from error
    entries = json.loads(meta.read_text(encoding="utf-8"))["videos"]
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as temporary:
        folder = Path(temporary) / out.name
        for name, videos in (("train", split.train), ("valid", split.valid)):
            _write_list(folder, name, {video: entries[video] for video in videos}, meta.parent.resolve())
        about: dict[str, object] = {"seed": seed, "unseen_share": unseen_share, "val_share": val_share}
        about |= {"seen": split.seen, "unseen": split.unseen}
        about |= {"valid_seen": split.valid_seen, "valid_unseen": split.valid_unseen}
        _write_json(folder / "split.json", about)
        os.rename(folder, out)
    return split


def _write_list(root: Path, name: str, entries: Mapping[str, object], source: Path) -> None:
    """Write the meta.json and the text file of a list, and links to the folders of its videos in `source`."""
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
