"""A small valid working folder, and functions that spoil it. Their paths are relative to the working directory."""

import json
import shutil
from itertools import product
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
from conftest import untracked
from PIL import Image
from ruamel.yaml import YAML

from ssvos.config import Config, parse, read_yaml
from ssvos.config.variants import merge, read_params
from ssvos.data.index import labelled_frames, write_index
from ssvos.data.preparation import prepare
from ssvos.labels import write_labels
from ssvos.models.checkpoint import save_checkpoint
from ssvos.models.network import Network
from ssvos.scribbles.store import STORE_SCHEMA, scribble_row, write_store
from ssvos.training.train_state import SavedState, TrainState, run_digest, to_bytes

PARAMS = Path(__file__).parent / "tiny_params.yaml"
SIZE = (48, 64)
IMAGES, MASKS, LISTS = "set/JPEGImages/480p", "set/Annotations/480p", "set/ImageSets/2017"


def make_place(place: Path) -> None:
    """Write a valid working folder.

    It has a data set in DAVIS layout, one in YouTube-VOS layout, parameters, the outputs of the stages, a clip with a
    scribble and a checkpoint, true masks and predicted masks.
    """
    for number, sequence in enumerate("abc"):
        for t in range(4):
            an_image(place / f"set/JPEGImages/480p/{sequence}/{t:05d}.jpg", 10 * number + t)
            write_labels(place / f"set/Annotations/480p/{sequence}/{t:05d}.png", a_mask(1, 2))
            for folder in ("gt", "pred") if sequence < "c" else ():
                write_labels(place / folder / sequence / f"{t:05d}.png", a_mask(1, 2))
    for split, names in (("train", "a\nb\n"), ("val", "c\n")):
        write(f"{place}/set/ImageSets/2017/{split}.txt", names)
        objects = {str(i): {"category": "cat", "frames": ["00000"]} for i in (1, 2)}
        videos = {"train": "tu", "val": "v"}[split]
        for name in videos:
            shutil.copytree(place / IMAGES / "a", place / f"yt/{split}/JPEGImages/{name}")
            shutil.copytree(place / MASKS / "a", place / f"yt/{split}/Annotations/{name}")
        write(f"{place}/yt/{split}/meta.json", json.dumps({"videos": {name: {"objects": objects} for name in videos}}))
    shutil.copy(PARAMS, place / "params.yaml")
    source = {"name": "s", "layout": "davis", "root": "set"}
    edit(f"{place}/params.yaml", data={"sources": [source]})
    _make_outputs(place)
    for t in range(4):
        an_image(place / f"clip/{t:05d}.png", t)
    write_labels(place / "scribble.png", a_scribble(1))
    stroke = {"path": [[0.2, 0.2], [0.4, 0.4]], "object_id": 1}
    write(f"{place}/strokes.json", json.dumps({"sequence": "clip", "scribbles": [[stroke], [], [], []]}))
    shutil.copy(place / "runs/tiny/ours/stage1/checkpoint.pt", place / "checkpoint.pt")
    shutil.copy(place / "params.yaml", place / "fit.yaml")
    edit(f"{place}/fit.yaml", fit={"stage": "stage1", "out": "out"})
    write(f"{place}/scores.json", "{}")


def _make_outputs(place: Path) -> None:
    """Write the outputs of `prepare`, `scribbles` and the training stages, with random weights."""
    params = read_params(place / "params.yaml")
    config, roots = params.base, {"s": place / "set"}
    index = prepare(config, roots, untracked)
    write_index(index, place / "data/tiny/frames/index.parquet")
    rows = [scribble_row(row, roots["s"], config.scribbles) for row in labelled_frames(index).to_pylist()]
    write_store(pa.Table.from_pylist(rows, schema=STORE_SCHEMA), place / "data/tiny/scribbles/scribbles.parquet")
    about = {"height": 48, "width": 64, "chosen_by": "J", "holdout_score": 0.5, "epoch": 1}
    for name, variant in params.variants.items():
        for stage in ("stage1", "stage2"):
            out = place / "runs/tiny" / name / stage
            save_checkpoint(out / "checkpoint.pt", Network(variant.model).state_dict(), variant.model, about)


def an_image(path: str | Path, seed: int = 0, size: tuple[int, int] = SIZE, **more) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **more)


def a_mask(*ids: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    mask = np.zeros(size, np.uint8)
    for i in ids:
        mask[8:20, 7 * i : 7 * i + 6] = i
    return mask


def a_scribble(*ids: int) -> np.ndarray:
    scribble = np.where(a_mask(*ids) > 0, a_mask(*ids), 255).astype(np.uint8)
    scribble[40:42] = 0
    return scribble


def write(path: str, content: str | bytes = "") -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(content.encode() if isinstance(content, str) else content)


def edit(path: str, **changes) -> None:
    """Merge values into a YAML file."""
    yaml = YAML(typ="safe")
    values = merge(yaml.load(Path(path).read_text()), changes)
    with open(path, "w", encoding="utf-8") as file:
        yaml.dump(values, file)


def cut(path: str, share: float = 0.6) -> None:
    data = Path(path).read_bytes()
    Path(path).write_bytes(data[: int(share * len(data))])


def gone(*paths: str) -> None:
    for path in map(Path, paths):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def renamed(path: str, suffix: str) -> None:
    Path(path).rename(Path(path).with_suffix(suffix))


def fewer_frames(sequence: str, count: int) -> None:
    for folder, suffix in ((IMAGES, "jpg"), (MASKS, "png")):
        gone(*(f"{folder}/{sequence}/{t:05d}.{suffix}" for t in range(count, 4)))


def one_turned() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    an_image(f"{IMAGES}/a/00001.jpg", exif=exif)


def small_evaluation_frame() -> None:
    for t in range(4):
        an_image(f"{IMAGES}/c/{t:05d}.jpg", size=(24, 40))
        write_labels(f"{MASKS}/c/{t:05d}.png", a_mask(1, size=(24, 40)))


def other_objects() -> None:
    write_labels("set/Scribbles/c/00000.png", a_scribble(3))


def other_source(path: str) -> None:
    """Use the index of source s with parameters that list source t."""
    source = {"name": "t", "layout": "davis", "root": "set"}
    edit(path, fit={"index": "data/tiny/frames/index.parquet"}, data={"sources": [source]})


def one_more_video(path: str) -> None:
    """Add a video that the existing scribble store lacks."""
    for folder in (IMAGES, MASKS):
        shutil.copytree(f"{folder}/a", f"{folder}/d")
    write(f"{LISTS}/train.txt", "a\nb\nd\n")
    edit(path, fit={"scribbles": "data/tiny/scribbles/scribbles.parquet"})


def drawn_alone(path: str, **source) -> None:
    """Write a source in folder layout that has drawn scribbles and no mask."""
    shutil.copytree(IMAGES, "own/frames")
    for sequence, t in product("abc", range(4)):
        write_labels(f"own/scribbles/{sequence}/{t:05d}.png", a_scribble(1))
    for split, names in (("train", "a\nb\n"), ("val", "c\n")):
        write(f"own/{split}.txt", names)
    edit(path, data={"sources": [{"name": "s", "layout": "folder", "root": "own", **source}]})


def state_of_another(path: str) -> None:
    """Write another run's state to the path where this run saves its own."""
    files = ["data/tiny/frames/index.parquet", "data/tiny/scribbles/scribbles.parquet"]
    values = read_yaml(Path(path))
    config = parse(Config, {key: values[key] for key in values if key not in ("variants", "fit")}, path)
    edit(path, fit=dict(zip(("index", "scribbles"), files, strict=True)))
    digest = run_digest(config, "stage1", [Path(file) for file in files])
    SavedState(Path(f"out/resume-{digest}.pt"), "another").write(to_bytes(TrainState(), "another"))


def scribble_before_mask() -> None:
    """Write a source in folder layout, which allows frames without a mask: frame 0 of video c has a scribble only."""
    for old, new in ((IMAGES, "own/frames"), (MASKS, "own/masks")):
        shutil.copytree(old, new)
    for split, names in (("train", "a\nb\n"), ("val", "c\n")):
        write(f"own/{split}.txt", names)
    gone("own/masks/c/00000.png")
    write_labels("own/scribbles/c/00000.png", a_scribble(1))
    edit("params.yaml", data={"sources": [{"name": "s", "layout": "folder", "root": "own"}]})


def a_video(path: str, share: float = 1.0) -> None:
    with av.open(path, "w") as container:
        stream = container.add_stream("mpeg4", rate=24)
        stream.width, stream.height, stream.pix_fmt = SIZE[1], SIZE[0], "yuv420p"
        for seed in range(30):
            pixels = np.random.default_rng(seed).integers(0, 255, (*SIZE, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    cut(path, share)


def silent_sound(path: str) -> None:
    with av.open(path, "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        silence.sample_rate = 8000
        container.mux(stream.encode(silence))
