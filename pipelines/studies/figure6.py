"""Stage `figure6` of studies/table3: the paper's Figure 6, the same frames with the masks of six rows of Table III.

A row of the picture is an evaluation video, a column is a row of the table. A run without masks has a grey tile with
the text "not run".
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
COLUMNS = ("pce", "pce_sa", "pce_cca", "pce_ss", "pce_dcrf", "full")  # the paper's order
_VIDEOS = 6
_TIME = 0.6  # of the shown frame, as a fraction of the video: masks have had time to drift
_WIDTH = 240  # of a tile
_CAPTION_HEIGHT = 26  # pixels above the tiles
_BORDER = 3
_GREY, _INK = 205, (30, 30, 30)


def main() -> None:
    no_arguments(__doc__)
    params = read_params()
    layout = Layout(params.base.data.name)
    tracking.connect()
    write_figure(params, layout)
    record = Records.read(params, layout).record("figure6", FIGURE, "evaluation", params.base, files={"": [FIGURE]})
    tracking.write(record)
    print(FIGURE.absolute())


def write_figure(params: Params, layout: Layout) -> None:
    """Write figure6.jpg."""
    paper = read_table("III")
    study = read_study(STUDY, paper)
    videos = evaluation_videos(layout.index)
    chosen = [videos[k] for k in evenly(len(videos), _VIDEOS)]
    folders = {row: layout.predictions(name) for row, name in _runs_by_row(study, layout).items()}
    rows = [[_tile(params.base, layout, video, folder) for folder in folders.values()] for video in chosen]
    captions = [_caption(paper, row, tile.shape[1]) for row, tile in zip(COLUMNS, rows[0], strict=True)]
    picture = np.concatenate([np.concatenate(row, axis=1) for row in (captions, *rows)])
    write_bytes(FIGURE, encode_jpeg(picture))


def _runs_by_row(study: Study, layout: Layout) -> dict[str, str]:
    """The run of each column, all with the same seed: the first seed with masks in any column."""
    seeds = (seed for seed in study.seeds if any(_has_masks(layout, seeded_name(row, seed)) for row in COLUMNS))
    seed = next(seeds, study.seeds[0])
    return {row: seeded_name(row, seed) for row in COLUMNS}


def _has_masks(layout: Layout, name: str) -> bool:
    return layout.predictions(name).is_dir()


def _tile(config: Config, layout: Layout, video: IndexedVideo, folder: Path) -> np.ndarray:
    """A frame with the mask of a run, or a grey tile, with a white border -> (H, W, 3) uint8.

    folder: the run's predicted masks
    """
    frame = video.frames[round(_TIME * (len(video.frames) - 1))]
    image = _resized(read_frame(layout.roots(config)[video.dataset] / frame.image_path), Image.Resampling.BICUBIC)
    mask = folder / video.sequence / f"{frame.name}.png"
    if mask.is_file():
        tile = overlay(image, _resized(read_labels(mask), Image.Resampling.NEAREST))
    else:
        tile = _with_text(np.full_like(image, _GREY), "not run")
    return np.pad(tile, ((_BORDER, _BORDER), (_BORDER, _BORDER), (0, 0)), constant_values=255)


def _resized(image: np.ndarray, resampling: Image.Resampling) -> np.ndarray:
    """A frame or labels, resized to the width of a tile."""
    height = max(1, round(image.shape[0] * _WIDTH / image.shape[1]))
    return np.asarray(Image.fromarray(image).resize((_WIDTH, height), resampling))


def _caption(paper: PaperTable, row: str, width: int) -> np.ndarray:
    return _with_text(np.full((_CAPTION_HEIGHT, width, 3), 255, np.uint8), " + ".join(paper.rows[row].ideas))


def _with_text(picture: np.ndarray, text: str) -> np.ndarray:
    """A picture with text in the centre."""
    image = Image.fromarray(picture)
    centre = (image.width / 2, image.height / 2)
    ImageDraw.Draw(image).text(centre, text, fill=_INK, font=ImageFont.load_default(15), anchor="mm")
    return np.asarray(image)


if __name__ == "__main__":
    run_stage(main)
