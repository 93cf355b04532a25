"""Bad input of `ssvos evaluate`, `scribble`, `submit` and `split`: (command, fault, parts of the message)."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from bad_place import (
    LISTS,
    MASKS,
    a_mask,
    an_image,
    cut,
    gone,
    renamed,
    write,
)
from PIL import Image

from ssvos.labels import write_labels

EVALUATE, SCRIBBLE = "ssvos evaluate gt pred --json scores.json", "ssvos scribble gt out"


def moved(old: str, new: str) -> None:
    Path(new).parent.mkdir(parents=True, exist_ok=True)
    Path(old).rename(new)


def entered_last() -> None:
    """List the only video's objects from its last frame on."""
    shutil.copytree("yt/val/Annotations/v", "pred/v")
    objects = {"1": {"category": "cat", "frames": ["00003"]}}
    write("yt/val/meta.json", json.dumps({"videos": {"v": {"objects": objects}}}))


YOUTUBE = f"{EVALUATE} --protocol youtube-vos --train-meta yt/train/meta.json --meta"
SCORED = [
    (EVALUATE, lambda: gone("pred"), "pred: no such folder of predictions"),
    (EVALUATE, lambda: gone("pred/b"), "pred/b: no predictions of this sequence"),
    (EVALUATE, lambda: gone("pred/b/00002.png"), "pred/b/00002.png: no prediction for this annotated frame"),
    (EVALUATE, lambda: write_labels("pred/b/00002.png", a_mask(1, size=(9, 9))), "prediction is 9 x 9 pixels"),
    (EVALUATE, lambda: write_labels("pred/b/00002.png", a_mask(3)), "predicted id 3, the largest id is 2"),
    (EVALUATE, lambda: an_image("pred/b/00002.png"), "pred/b/00002.png: a label image must be … is RGB"),
    (EVALUATE, lambda: cut("pred/b/00002.png"), "pred/b/00002.png: not a readable image"),
    (EVALUATE, lambda: gone("gt"), "gt: no such folder of annotations"),
    (EVALUATE, lambda: gone("gt/a", "gt/b"), "gt: no sequence to score"),
    (EVALUATE, lambda: [gone(f"gt/b/{t:05d}.png") for t in range(4)], "gt/b: no annotation in this folder"),
    (EVALUATE, lambda: [gone(f"gt/b/{t:05d}.png") for t in range(1, 4)], "gt/b: 1 annotated frames; at least 3 needed"),
    (EVALUATE, lambda: write("gt/notes.txt"), "gt/notes.txt: expected only folders <sequence>/"),
    (EVALUATE, lambda: write("gt/b/notes.txt"), "gt/b/notes.txt: expected only annotations"),
    (EVALUATE.replace(" pred", " set"), lambda: None, "no sequences in this folder, but some in set/Annotations/480p"),
    (EVALUATE.replace("gt pred", "gt pred/a"), lambda: None, "pred/a: holds frames, not sequences; give the folder"),
    (EVALUATE.replace("gt", "gt/a"), lambda: None, "gt/a: holds frames, not sequences; give the folder above"),
    (EVALUATE.replace("gt", "set/Annotations"), lambda: None, "but some in set/Annotations/480p; give that folder"),
    (EVALUATE.replace("pred", "up"), lambda: moved("pred", "up/x"), "no sequences in this folder, but some in up/x;"),
    (f"{EVALUATE} --frames gt", lambda: None, "gt: is a folder; give the name of a file"),
    (EVALUATE, lambda: renamed("gt/b/00002.png", ".PNG"), "gt/b/00002.PNG: expected only annotations"),
    (EVALUATE, lambda: write_labels("gt/a/00000.png", a_mask()), "gt/a/00000.png: no object in the first annotation"),
    (f"{EVALUATE} --split no.txt", lambda: None, "no.txt: no such list"),
    (f"{EVALUATE} --split l.txt", lambda: write("l.txt", "../gt/a\n"), "l.txt: '../gt/a' is not a sequence"),
    (f"{EVALUATE} --split l.txt", lambda: write("l.txt", "\n"), "l.txt: the list is empty"),
    (f"{EVALUATE} --split l.txt", lambda: write("l.txt", "zebra\n"), "gt/zebra: no annotations of this sequence"),
    (EVALUATE.replace("scores.json", "gt"), lambda: None, "gt: is a folder; give the name of a file"),
    (f"{EVALUATE}/x", lambda: None, "scores.json/x: cannot be written … scores.json is a file"),
    (f"{YOUTUBE} no.json", lambda: None, "no.json: no such file; expected the meta.json"),
    (f"{YOUTUBE} l.json", lambda: write("l.json", "{"), "l.json: not a YouTube-VOS meta.json"),
    (f"{YOUTUBE} yt/val/meta.json", lambda: None, "yt/val/meta.json: video 'a' is not listed"),
    (YOUTUBE.replace("gt", "yt/val/Annotations") + " yt/val/meta.json", entered_last, "no object of yt/val/meta.json"),
    (SCRIBBLE, lambda: gone("gt"), "gt: no such folder"),
    (SCRIBBLE, lambda: (gone("gt"), Path("gt").mkdir()), "gt: holds no <seq>/<frame>.png"),
    (SCRIBBLE, lambda: write_labels("gt/0.png", a_mask(1)), "gt/0.png: is next to the sequences"),
    (SCRIBBLE, lambda: write("gt/b/00003.png", "x"), "gt/b/00003.png: not a readable image (unknown format)"),
    (SCRIBBLE, lambda: renamed("gt/b/00003.png", ".PNG"), "gt/b/00003.PNG: the suffix must be .png"),
    (SCRIBBLE.replace("out", "gt"), lambda: None, "gt: is in gt, scribbles would overwrite masks"),
    (SCRIBBLE.replace("out", "gt/s"), lambda: None, "gt/s: is in gt"),
    (SCRIBBLE, lambda: write("out/b"), "out/b/00000.png: cannot be written … out/b is a file"),
]


def sent(spoil: Callable[[], object] = lambda: None) -> Callable[[], None]:
    """Return a fault in a submission: `pred` has both test-dev sequences, then `spoil` runs."""
    return lambda: (write(f"{LISTS}/test-dev.txt", "a\nb\n"), spoil())


def a_folder_too_many(path: str) -> None:
    Path(path).rename("moved")
    Path(path).mkdir()
    Path("moved").rename(f"{path}/deep")


def other_colours(path: str) -> None:
    image = Image.fromarray(a_mask(1))
    image.putpalette([0, 0, 0, 9, 9, 9])
    image.save(path)


def train_meta(categories: dict[str, str]) -> Callable[[], None]:
    """Return a fault that writes a meta.json. categories: video -> its categories, one letter per object."""
    videos = {
        video: {"objects": {str(k): {"category": c, "frames": []} for k, c in enumerate(found, 1)}}
        for video, found in categories.items()
    }
    return lambda: write("yt/train/meta.json", json.dumps({"videos": videos}))


SUBMIT = "ssvos submit pred out.zip --benchmark davis2017-testdev --data set"
SUBMITTED = [
    (SUBMIT.replace(".zip", ".rar"), sent(), "out.rar: a submission is a zip"),
    (SUBMIT.replace("out.zip", "pred/out.zip"), sent(), "pred/out.zip: is in pred, among the masks"),
    (SUBMIT.replace("set", "no"), sent(), "no: no such folder; name the benchmark's data set"),
    (SUBMIT.replace("davis2017-testdev", "youtube-vos"), sent(), "set/meta.json: no such file; name YouTube-VOS's"),
    (SUBMIT, lambda: None, "test-dev.txt: no such list; choose one of train, val"),
    (SUBMIT, sent(lambda: gone(f"{MASKS}/a")), "480p/a: its frames or its first annotation are missing"),
    (SUBMIT, sent(lambda: gone("pred")), "pred: no such folder; expected <seq>/<frame>.png below it"),
    (SUBMIT, sent(lambda: a_folder_too_many("pred")), "pred: the sequences are in pred/deep"),
    (SUBMIT, sent(lambda: a_folder_too_many("pred/b")), "pred/b/deep: is an extra folder … to pred/b"),
    (SUBMIT, sent(lambda: write("pred/b/Thumbs.db")), "pred/b/Thumbs.db: is not part of a submission"),
    (SUBMIT, sent(lambda: write_labels("pred/0.png", a_mask())), "pred/0.png: is next to the sequences"),
    (SUBMIT, sent(lambda: gone("pred/b")), "pred/b: missing, the benchmark has this sequence"),
    (SUBMIT, sent(lambda: (gone("pred/b"), Path("pred/b").mkdir())), "pred/b: holds none of the 4 masks"),
    (SUBMIT, sent(lambda: gone("pred/b/00003.png")), "pred/b/00003.png: missing, the benchmark requires this frame"),
    (SUBMIT, sent(lambda: an_image("pred/b/00003.png")), "pred/b/00003.png: a label image must be … is RGB"),
    (SUBMIT, sent(lambda: Image.fromarray(a_mask(1, 2)).save("pred/b/00003.png")), "b/00003.png: is a grey PNG"),
    (SUBMIT, sent(lambda: other_colours("pred/b/00003.png")), "b/00003.png: its palette is neither DAVIS's nor"),
    (SUBMIT, sent(lambda: write_labels("pred/b/00003.png", a_mask(1, size=(24, 32)))), "mask is 24x32, its frame"),
    (SUBMIT, sent(lambda: write_labels("pred/b/00003.png", a_mask(3))), "unknown object 3, this sequence has 1, 2"),
    (SUBMIT, sent(lambda: write("out.zip/x")), "out.zip: is a folder"),
]
SPLIT = "ssvos split yt/train/meta.json held"
SPLITTING = [
    (SPLIT, lambda: None, "yt/train/meta.json: too few categories, 1; at least 2"),
    (SPLIT, train_meta({"v": "ab", "w": "ab"}), "yt/train/meta.json: holding out any category leaves less"),
    (SPLIT, train_meta({"v": "a", "w": "b"}), "yt/train/meta.json: every video is the only one of a seen"),
    (SPLIT, train_meta({"../v": "a", "w": "b"}), "yt/train/meta.json: '../v' is not the name of a video"),
    (SPLIT.replace("held", "set"), train_meta({"v": "a", "w": "b"}), "set: exists already; choose another folder"),
    (f"{SPLIT} --val-share 1.5", lambda: None, "--val-share 1.5: is not a share"),
    (SPLIT.replace("train", "no"), lambda: None, "yt/no/meta.json: no such file; expected the meta.json"),
]
