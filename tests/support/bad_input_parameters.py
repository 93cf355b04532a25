"""Bad input of data sets and parameters: (command, fault, parts of the message)."""

from collections.abc import Callable
from pathlib import Path

from bad_place import (
    IMAGES,
    LISTS,
    MASKS,
    SIZE,
    a_mask,
    an_image,
    cut,
    edit,
    fewer_frames,
    gone,
    one_turned,
    other_objects,
    renamed,
    scribble_before_mask,
    small_evaluation_frame,
    write,
)
from PIL import Image

from ssvos.labels import write_labels


def youtube(spoil: Callable[[], object] = lambda: None) -> Callable[[], None]:
    def change() -> None:
        source = {"name": "y", "layout": "youtube-vos", "root": "yt"}
        edit("params.yaml", data={"sources": [source], "holdout_split": ""})
        spoil()

    return change


PREPARE = "pipelines.prepare"
DATA = [
    (PREPARE, lambda: (gone("set"), Path("set").mkdir()), "set: contains no JPEGImages/, so its layout is not davis"),
    (PREPARE, lambda: gone("set/Annotations"), "set: contains neither Annotations/ nor Scribbles/"),
    (PREPARE, lambda: gone(f"{LISTS}/train.txt"), "train.txt: no such list; choose one of val"),
    (PREPARE, lambda: write(f"{LISTS}/val.txt", "c\nghost\n"), "480p/ghost: listed in val, but has no frames"),
    (PREPARE, lambda: write(f"{LISTS}/val.txt", "\n"), "val.txt: the list is empty"),
    (PREPARE, lambda: write(f"{LISTS}/val.txt", b"\xff\xfe\x00a"), "val.txt: not a text file"),
    (PREPARE, lambda: write(f"{LISTS}/val.txt", "c\na\n"), "a is in both train and val"),
    (PREPARE, lambda: write(f"{LISTS}/val.txt", "../x\n"), "val.txt: '../x' is not a sequence"),
    (PREPARE, lambda: write(f"{LISTS}/val.txt", "c/00000\n"), "val.txt: 'c/00000' is not a sequence"),
    (
        PREPARE,
        lambda: write(f"{LISTS}/train.txt", "a\n"),
        "a: too few training sequences to hold one out … data.holdout_split",
    ),
    (PREPARE, lambda: fewer_frames("a", 1), "480p/a: the video has only one frame"),
    (PREPARE, lambda: fewer_frames("c", 2), "480p/c: 2 annotated frames; at least 3 needed"),
    (PREPARE, lambda: write_labels(f"{MASKS}/a/00000.png", a_mask()), "a/00000.png: the video's first mask has no"),
    (PREPARE, lambda: cut(f"{MASKS}/a/00001.png"), "a/00001.png: not a readable image … as a palette PNG"),
    (PREPARE, lambda: cut(f"{IMAGES}/a/00001.jpg"), "a/00001.jpg: not a readable image (image file is truncated"),
    (PREPARE, lambda: write(f"{IMAGES}/a/00001.jpg", "x"), "a/00001.jpg: not a readable image (unknown format)"),
    (PREPARE, lambda: write_labels(f"{MASKS}/a/00001.png", a_mask(1, size=(24, 32))), "mask is 24x32, its frame 48x64"),
    (PREPARE, lambda: an_image(f"{MASKS}/a/00001.png"), "a/00001.png: a label image must be an 8-bit … is RGB"),
    (PREPARE, lambda: Image.new("I;16", SIZE).save(f"{MASKS}/a/00001.png"), "a/00001.png: a label … is I;16"),
    (PREPARE, lambda: an_image(f"{MASKS}/a/00001.png", format="JPEG"), "must be a PNG, this one is JPEG"),
    (
        PREPARE,
        lambda: write_labels(f"{MASKS}/a/9.png", a_mask(1)),
        "a/9.png: no frame has this name, or two images share it",
    ),
    (PREPARE, lambda: an_image(f"{IMAGES}/a/00001.png"), "a/00001.png: no frame has this name, or two images"),
    (PREPARE, lambda: gone(f"{MASKS}/a/00001.png"), "a/00001.jpg: has no mask; add 00001.png"),
    (PREPARE, lambda: renamed(f"{MASKS}/c/00001.png", ".PNG"), "c/00001.PNG: the suffix must be .png"),
    (PREPARE, lambda: write(f"{MASKS}/c/notes.txt"), "c/notes.txt: expected only annotations <frame>.png"),
    (PREPARE, one_turned, "a/00001.jpg: its EXIF orientation is 6; rotate the pixels"),
    (PREPARE, small_evaluation_frame, "c/00000.jpg: frame is 24x40, the network needs at least 32x32"),
    (PREPARE, other_objects, "Scribbles/c/00000.png: its object 3 is not in the frame's mask"),
    (PREPARE, scribble_before_mask, "c/00000.jpg: the first scribble of an evaluation video needs a mask"),
    (PREPARE, youtube(lambda: write("yt/val/meta.json", "{")), "val/meta.json: not a YouTube-VOS meta.json"),
    (PREPARE, youtube(lambda: write("yt/val/meta.json", '{"videos": {}}')), "val/meta.json: lists no video"),
    (PREPARE, youtube(lambda: write_labels("yt/val/Annotations/v/00002.png", a_mask(3))), "object 3 is not in "),
]


def two_sources(first: dict, second: dict) -> None:
    edit(
        "params.yaml", data={"sources": [{"name": "s", "layout": "davis", "root": "set"} | s for s in (first, second)]}
    )


def loss(**values) -> Callable[[], None]:
    return lambda: edit("params.yaml", loss=values)


def space(**ranges) -> Callable[[], None]:
    """Return a fault in tune.space. ranges: key, with `__` instead of dots -> range."""
    return lambda: edit("params.yaml", tune={"space": {key.replace("__", "."): r for key, r in ranges.items()}})


def tune(**values) -> Callable[[], None]:
    return lambda: edit("params.yaml", tune=values)


TUNE, WIDTH = "pipelines.tune", "model__fusion_channels"
GRID = {key: {"num": 3} for key in ("train.stage1.learning_rate", "loss.weight")}
PARAMS = [
    (PREPARE, loss(sigma_rbg=1.0), "params.yaml: loss.sigma_rbg: unknown key, did you mean sigma_rgb?"),
    (PREPARE, loss(zzz=1), "params.yaml: loss.zzz: unknown key, remove it"),
    (PREPARE, lambda: edit("params.yaml", adopted=""), "params.yaml: adopted: renamed to tuned_from; use the new name"),
    (PREPARE, loss(weight="much"), "params.yaml: loss.weight: input should be a valid number, not 'much'"),
    (PREPARE, loss(weight=-1.0), "params.yaml: loss.weight: input should be greater than or equal to 0, not -1.0"),
    (PREPARE, loss(filter="latice"), "params.yaml: loss.filter: input should be 'lattice' or 'exact', not 'latice'"),
    (PREPARE, loss(weight=float("nan")), "params.yaml: loss.weight: input should be a finite number, not nan"),
    (PREPARE, loss(unreliable_above=0.5), "params.yaml: loss: unreliable_above 0.5 must be below unreliable_below"),
    (PREPARE, lambda: edit("params.yaml", loss=None), "params.yaml: loss: expected a mapping of parameters, not None"),
    (PREPARE, lambda: edit("params.yaml", variants={"ours": 3}), "params.yaml: variants.ours: expected a mapping"),
    (PREPARE, lambda: edit("params.yaml", variants=None), "params.yaml: variants: no variant is defined"),
    (PREPARE, lambda: write("params.yaml", "data:\n  name: x\n a: [\n"), "params.yaml: not readable as YAML; line 3:"),
    (PREPARE, lambda: write("params.yaml", "- 1\n"), "params.yaml: expected a mapping of parameters, found list"),
    (PREPARE, lambda: write("params.yaml"), "params.yaml: the file is empty … ssvos plan --preset demo --write"),
    (PREPARE, lambda: gone("params.yaml"), "params.yaml: no such file … ssvos plan --preset demo --write"),
    (
        PREPARE,
        lambda: edit("params.yaml", scribbles={"margin_min": 0.3}),
        "scribbles: margin_min 0.3 is above margin_max",
    ),
    (
        PREPARE,
        lambda: edit("params.yaml", train={"augment": {"scale_min": 2.0}}),
        "train.augment: scale_min 2.0 is above",
    ),
    (
        PREPARE,
        lambda: edit("params.yaml", train={"stage1": {"batch_clips": 9}}),
        "train.stage1: clips_per_epoch 4 is less",
    ),
    (
        PREPARE,
        lambda: edit("params.yaml", train={"stage2": {"smallest_stride": 9}}),
        "train.stage2: smallest_stride 9 is above frame_stride",
    ),
    (
        PREPARE,
        lambda: edit("params.yaml", train={"stage1": {"weights": {"sets": 0.0}}}),
        "params.yaml: train.stage1.weights: sets is not in data.sources (s); rename it",
    ),
    (
        PREPARE,
        lambda: two_sources({"unlimited": True}, {}),
        "params.yaml: data.sources.0: unlimited needs layout embedded, source s has layout davis",
    ),
    (
        PREPARE,
        lambda: edit("params.yaml", data={"name": "../x"}),
        "params.yaml: data.name: '../x' is not a name; use letters",
    ),
    (
        PREPARE,
        lambda: edit("params.yaml", data={"sources": []}),
        "params.yaml: data.sources: too few entries; give at least 1",
    ),
    (PREPARE, lambda: edit("params.yaml", data={"sources": [{"name": "s"}]}), "data.sources.0.layout: missing, add it"),
    (
        PREPARE,
        lambda: edit("params.yaml", data={"sources": [{"name": "s", "layout": "davis", "root": "set", "val": ""}]}),
        "params.yaml: data: no source has an evaluation list; set val of source s",
    ),
    (PREPARE, lambda: edit("params.yaml", train={"stage1": {"accumulate": 4}}), "batch_clips 2 is not a multiple"),
    (
        PREPARE,
        lambda: edit("params.yaml", data={"holdout_split": "val"}),
        "data: holdout_split val is also the train or val list of s",
    ),
    (PREPARE, lambda: two_sources({}, {}), "params.yaml: data: two sources are named s; rename one"),
    (PREPARE, lambda: two_sources({"root": ""}, {"name": "t"}), "data.sources: s has no root"),
    # `prepare` checks all sources before it renders the embedded one, so a fault leaves no frame in the other's folder
    (
        PREPARE,
        lambda: two_sources({"name": "e", "layout": "embedded"}, {"root": "no"}),
        "no: no such folder; set the root",
    ),
    (PREPARE, lambda: two_sources({"layout": "embedded"}, {}), "params.yaml: data: two sources are named s"),
    (
        PREPARE,
        lambda: two_sources({"name": "e", "layout": "embedded", "val": "x"}, {}),
        "e is embedded and has no list x",
    ),
    (TUNE, space(loss__wieght={"low": 0.1, "high": 1.0}), "tune.space.loss.wieght: … did you mean weight?"),
    (TUNE, space(loss__weight={"low": 2.0, "high": 1.0}), "tune.space.loss.weight: low 2.0 must be below high 1.0"),
    (TUNE, space(loss__beta={"low": 0.0, "high": 1.0}), "tune.space.loss.beta: low 0.0 must be above 0 if log is true"),
    (TUNE, space(loss__scale={"low": 0.5, "high": 4.0}), "tune.space.loss.scale: … less than or equal to 1, not 4.0"),
    (TUNE, space(train__stage1__epochs={"low": 1.0, "high": 4.0}), "train.stage1.epochs: all trials have the same"),
    (TUNE, space(data__sources={"choices": ["a", "b"]}), "tune.space.data.sources: not a single value"),
    (TUNE, space(scribbles__margin_max={"low": 0.1, "high": 0.2}), "scribbles.margin_max: has no effect on a trial"),
    (TUNE, space(loss__beta={"low": 0.1}), "tune.space.loss.beta: has no range; give low and high, or choices"),
    (TUNE, space(loss__weight={"choices": [0.1, 0.2]}), "tune.space.loss.weight: has both choices and a range"),
    (TUNE, space(loss__beta={"choices": [0.1, 0.1]}), "tune.space.loss.beta: has fewer than two choices"),
    (TUNE, space(loss__regularizer={"low": 0.1, "high": 1.0}), "tune.space.loss.regularizer: not a number … choices"),
    (TUNE, space(loss__regularizer={"choices": ["none", "crf"]}), "loss.regularizer: input should be … not 'crf'"),
    (TUNE, space(**{WIDTH: {"low": 4.5, "high": 8.0}}), "fusion_channels: an integer, but its range is 4.5 to 8.0"),
    (TUNE, space(loss__beta={"low": 0.1, "high": 1.0, "num": 1}), "tune.space.loss.beta: num 1 is not a grid"),
    (TUNE, tune(searcher="grid"), "tune.space.loss.weight: a grid needs points, not a range; add num"),
    (TUNE, tune(searcher="grid", space=GRID), "params.yaml: tune.trials: 3 trials, but the grid has 9 points"),
    (TUNE, tune(searcher="pbt", space={"model.fusion_channels": {"low": 4, "high": 8}}), "cannot change during"),
    (TUNE, tune(searcher="pbt", trials=1), "params.yaml: tune.trials: a population needs at least 2 members"),
    (
        TUNE,
        tune(searcher="pbt", perturbation_interval=2),
        "params.yaml: tune.perturbation_interval: 2, but a trial has only 2 epochs; lower it",
    ),
    (TUNE, tune(searcher="pbt", workers=2), "params.yaml: tune.workers: 2 workers, but pbt trains a trial in one"),
    (TUNE, tune(workers=3), "tune.workers: a batch of 2 clips (train.stage1) cannot be divided among 3"),
    (TUNE, tune(resources={"cpus": 999.0}), "params.yaml: tune.resources: 999 CPUs and 0 GPUs requested, but"),
    (TUNE, tune(resources={"gpus": 1.5}), "params.yaml: tune.resources: gpus 1.5 is above 1"),
    (
        TUNE,
        lambda: edit("params.yaml", tune={"variant": "urs"}),
        "params.yaml: tune.variant: no variant 'urs'; choose one of",
    ),
    (TUNE, lambda: edit("params.yaml", tune={"trial": {"los": 1}}), "tune.trial: los: unknown key, did you mean loss?"),
    (
        "pipelines.train --variant urs --stage stage1",
        lambda: None,
        "variants: no variant 'urs'; choose one of",
    ),
]


class _Code:
    def __reduce__(self):
        return open, ("it-ran", "w")


STAGE2, PREDICT = "pipelines.train --variant ours --stage stage2", "pipelines.predict --variant ours"
