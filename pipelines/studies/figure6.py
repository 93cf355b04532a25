"""Stage `figure6` of studies/table3: the paper's Figure 6, the same frames under six rows of Table III.

A row of the picture is a judged video, a column a row of the table. What has not run is a grey tile that says so.
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pipelines.evaluation_set import evaluation_videos, evenly
from pipelines.params import Layout, read_params
from pipelines.stage import no_arguments, run_stage
from pipelines.studies.study import STUDY, Study, read_study
from pipelines.tracking import mlflow_client as tracking
from pipelines.tracking.stage_records import Records
from ssvos.config import Config
from ssvos.config.variants import Params, seeded_name
from ssvos.data.clip_sources import read_frame
from ssvos.data.index import IndexedVideo
from ssvos.files import write_bytes
from ssvos.labels import read_labels
from ssvos.metrics.tables import PaperTable, read_table
from ssvos.visualization import encode_jpeg, overlay

FIGURE = Path("figure6.jpg")
COLUMNS = ("pce", "pce_sa", "pce_cca", "pce_ss", "pce_dcrf", "full")  # as in the paper
_VIDEOS = 6
_PLACE = 0.6  # of the way through a video, when masks have had time to drift
_WIDTH = 240  # of a tile
_HEAD = 26  # pixels above the tiles
_BORDER = 3
_GREY, _INK = 205, (30, 30, 30)


def main() -> None:
    no_arguments(__doc__)
    params = read_params()
    layout = Layout(params.base.data.name)
    tracking.connect()
    write_figure(params, layout)
    record = Records.read(params, layout).record("figure6", FIGURE, "judged", params.base, files={"": [FIGURE]})
    tracking.write(record)
    print(FIGURE.absolute())


def write_figure(params: Params, layout: Layout) -> None:
    paper = read_table("III")
    study = read_study(STUDY, paper)
    videos = evaluation_videos(layout.index)
    chosen = [videos[k] for k in evenly(len(videos), _VIDEOS)]
    folders = {row: layout.predictions(name) for row, name in _shown_runs(study, layout).items()}
    rows = [[_tile(params.base, layout, video, folder) for folder in folders.values()] for video in chosen]
    head = [_caption(paper, row, tile.shape[1]) for row, tile in zip(COLUMNS, rows[0], strict=True)]
    picture = np.concatenate([np.concatenate(row, axis=1) for row in (head, *rows)])
    write_bytes(FIGURE, encode_jpeg(picture))


def _shown_runs(study: Study, layout: Layout) -> dict[str, str]:
    """The run of each column: all with one seed, the first that any column has run with."""
    ran = (seed for seed in study.seeds if any(_has_run(layout, seeded_name(row, seed)) for row in COLUMNS))
    seed = next(ran, study.seeds[0])
    return {row: seeded_name(row, seed) for row in COLUMNS}


def _has_run(layout: Layout, name: str) -> bool:
    return layout.predictions(name).is_dir()


def _tile(config: Config, layout: Layout, video: IndexedVideo, folder: Path) -> np.ndarray:
    """A frame under one run's mask, or grey, with a white border -> (H, W, 3) uint8."""
    frame = video.frames[round(_PLACE * (len(video.frames) - 1))]
    image = _scaled(read_frame(layout.roots(config)[video.dataset] / frame.image_path), Image.Resampling.BICUBIC)
    mask = folder / video.sequence / f"{frame.name}.png"
    if mask.is_file():
        tile = overlay(image, _scaled(read_labels(mask), Image.Resampling.NEAREST))
    else:
        tile = _with_text(np.full_like(image, _GREY), "not run")
    return np.pad(tile, ((_BORDER, _BORDER), (_BORDER, _BORDER), (0, 0)), constant_values=255)


def _scaled(image: np.ndarray, how: Image.Resampling) -> np.ndarray:
    """A frame or labels as wide as a tile."""
    height = max(1, round(image.shape[0] * _WIDTH / image.shape[1]))
    return np.asarray(Image.fromarray(image).resize((_WIDTH, height), how))


def _caption(paper: PaperTable, row: str, width: int) -> np.ndarray:
    return _with_text(np.full((_HEAD, width, 3), 255, np.uint8), " + ".join(paper.rows[row].ideas))


def _with_text(picture: np.ndarray, text: str) -> np.ndarray:
    """The text in the middle."""
    image = Image.fromarray(picture)
    middle = (image.width / 2, image.height / 2)
    ImageDraw.Draw(image).text(middle, text, fill=_INK, font=ImageFont.load_default(15), anchor="mm")
    return np.asarray(image)


if __name__ == "__main__":
    run_stage(main)
