"""The report's pictures, as text that stands in the page: curves as SVG, frames as JPEG data."""

import base64
import io
from pathlib import Path

from pipelines.judged import judged_videos, late_objects
from pipelines.params import Layout
from ssvos.data.clips import read_frame
from ssvos.data.index import IndexedVideo
from ssvos.inference import starting_scribbles
from ssvos.labels import read_labels
from ssvos.scribbles.store import read_store
from ssvos.variants import Params
from ssvos.viz import draw_strokes, encode_jpeg, fit_width, overlay

_VIDEOS = 8
_MOMENTS = 6
_WIDTH = 320


def curves(histories: dict[tuple[str, str], list[dict[str, float]]]) -> str:
    """Loss and held-out score by epoch, both stages one after the other, a line a variant: an SVG."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9, 3), layout="constrained")
    panels = figure.subplots(1, 2)
    for panel, key, title in zip(panels, ("loss", "holdout_score"), ("training loss", "held-out score"), strict=True):
        for name in dict.fromkeys(variant for variant, _ in histories):
            first, second = histories[name, "stage1"], histories[name, "stage2"]
            epochs = range(1, len(first) + len(second) + 1)
            panel.plot(epochs, [row[key] for row in first + second], marker="o", markersize=3, label=name)
        panel.axvline(len(first) + 0.5, color="grey", linewidth=0.8, linestyle=":")
        panel.set_title(title, fontsize=10)
        panel.set_xlabel("epoch (dotted: stage 2 begins)")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.grid(alpha=0.3)
    panels[0].legend(frameon=False)
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()[text.getvalue().index("<svg") :]


def filmstrips(params: Params, layout: Layout) -> list[dict]:
    """For some judged videos: the scribble, and rows of moments under each variant, GrabCut + flow and the truth."""
    config = params.base
    roots, store = layout.roots(config), read_store(layout.scribbles)
    answers = {name: layout.predictions(name) for name in reversed(list(params.variants))}
    answers["grabcut + flow"] = Path("predictions") / layout.name / "yardsticks" / "grabcut_flow"
    films = []
    for video in judged_videos(layout.index)[:_VIDEOS]:
        root = roots[video.dataset]
        scribbles = starting_scribbles(video, store, late_objects(config)[video.dataset])
        start = min(scribbles)
        moments = _moments(start, len(video.frames))
        frames = {k: read_frame(root / video.frames[k].image_path) for k in {start, *moments}}
        rows = {
            name: [_picture(overlay(frames[k], read_labels(_mask(folder, video, k)))) for k in moments]
            for name, folder in answers.items()
        }
        if all(video.frames[k].mask_path for k in moments):
            rows["truth"] = [
                _picture(overlay(frames[k], read_labels(root / video.frames[k].mask_path))) for k in moments
            ]
        films.append(
            {
                "sequence": video.sequence,
                "scribble": _picture(draw_strokes(frames[start], scribbles[start])),
                "moments": [video.frames[k].name for k in moments],
                "rows": rows,
            }
        )
    return films


def _moments(start: int, count: int) -> list[int]:
    steps = min(_MOMENTS, count - start)
    return sorted({start + round(i * (count - 1 - start) / max(1, steps - 1)) for i in range(steps)})


def _mask(folder: Path, video: IndexedVideo, k: int) -> Path:
    return folder / video.sequence / f"{video.frames[k].name}.png"


def _picture(image) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(encode_jpeg(fit_width(image, _WIDTH), 80)).decode()
