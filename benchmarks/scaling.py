"""Estimated run times of the pipeline on 1, 8 and 64 GPUs, simulated from costs measured on two CPU cores.

    python benchmarks/scaling.py [--gpu-tflops 31] [--link-gb 12.5] [--cores-per-gpu 8] [--read-ms 5] [--write]

The script measures nothing. Costs come from results/*.json, the sizes of training from conf/preset/paper.yaml. The
speeds of a GPU, of a link and of reading a frame are assumptions, which the options set. It prints tables; --write
writes them to docs/scaling.md.
"""

import argparse
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from measure import RESULTS
from scaling_model import DAVIS, PIXELS_480P, YOUTUBE, Assumptions, Costs, DataSet, Simulation, paper

from pipelines.scribbles import FEWEST_ROWS
from ssvos.files import write_text

PAGE = Path(__file__).parent.parent / "docs" / "scaling.md"
GPUS = (1, 8, 64)
# bytes a row, counted once with 100 000 synthetic rows: on disk, as a table, at the peak while `videos_of` reads it
INDEX_BYTES = (22, 221, 1430)
# bytes of a frame of 480x854, counted once on 61 masks of DAVIS; both are proportional to the side of a frame
SCRIBBLE_BYTES, MASK_BYTES = 5300, 3200
GROWTH = 100


def stages(simulation: Simulation, data: DataSet) -> dict[str, float]:
    """Seconds of every stage by name."""
    first, second = paper().train.stage1, paper().train.stage2
    return {
        "`scribbles`": simulation.scribbles(data),
        "`train_stage1`, steps": simulation.train(first),
        "`train_stage1`, held-out scores": simulation.holdout(first, data),
        "`train_stage2`, steps": simulation.train(second),
        "`train_stage2`, held-out scores": simulation.holdout(second, data),
        "`predict`": simulation.predict(data),
        "`evaluate`": simulation.evaluate(data),
    }


def span(seconds: float) -> str:
    """Seconds with a suitable unit; `-` for 0."""
    for limit, size, unit in ((1, 0.001, "ms"), (120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / size:.3g} {unit}" if seconds else "-"
    return f"{seconds / 86_400:.3g} d"


def size(count: float) -> str:
    """Bytes with a suitable unit."""
    for limit, unit in ((1e9, "MB"), (1e12, "GB")):
        if count < limit:
            return f"{1000 * count / limit:.3g} {unit}"
    return f"{count / 1e12:.3g} TB"


def table(head: Sequence[str], rows: Sequence[Sequence[object]], num_leading: int = 1) -> str:
    """A Markdown table; the first `num_leading` columns hold words, the others numbers."""
    rule = ["---"] * num_leading + ["---:"] * (len(head) - num_leading)
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in (head, rule, *rows))


def cost_table(costs: Costs, assumptions: Assumptions) -> str:
    cpu, gpu = Simulation(costs, assumptions, 0), Simulation(costs, assumptions, 1)
    rows = [
        (
            "training, a frame",
            f"{costs.train_forwards:.2f}",
            *(span(one.train_frame(PIXELS_480P)) for one in (cpu, gpu)),
            "`train_step.json`",
        )
    ]
    for objects, forwards in zip((1, 3), costs.infer_forwards, strict=True):
        both = (span(one.infer_frame(PIXELS_480P, objects)) for one in (cpu, gpu))
        rows.append((f"inference, a frame, objects: {objects}", f"{forwards:.2f}", *both, "`inference.json`"))
    rows.append(("scribble, a frame", "", f"{span(costs.scribble)} of one core", "", "`scribbles.json`"))
    rows.append(("scores, an object in a frame", "", f"{span(costs.score)} of one core", "", "`bench_metrics.json`"))
    return table(("at 480x854", "plain forwards", "measured, two cores", "a GPU, assumed", "from"), rows)


def stage_table(costs: Costs, assumptions: Assumptions, data: DataSet) -> str:
    columns = [stages(Simulation(costs, assumptions, gpus), data) for gpus in (0, *GPUS)]
    rows = [(name, *(span(column[name]) for column in columns)) for name in columns[0]]
    rows.append(("all", *(span(sum(column.values())) for column in columns)))
    return table((data.name, "two cores", *(f"{gpus} GPU{'s' * (gpus > 1)}" for gpus in GPUS)), rows)


def assumption_table(costs: Costs, assumptions: Assumptions) -> str:
    """All stages on YouTube-VOS with 8 GPUs: GPUs of half and twice the speed, several times to read a frame."""
    factors = (0.5, 1, 2)
    rows = []
    for slower in (0, *factors):
        reading = replace(assumptions, read_ms=slower * assumptions.read_ms)
        at = [replace(reading, gpu_tflops=factor * assumptions.gpu_tflops) for factor in factors]
        all_stages = (span(sum(stages(Simulation(costs, one, 8), YOUTUBE).values())) for one in at)
        rows.append((f"{reading.read_ms:g} ms a frame", *all_stages))
    return table(("reading", *(f"{factor * assumptions.gpu_tflops:g} TFLOP/s" for factor in factors)), rows)


def step_table(costs: Costs, assumptions: Assumptions) -> str:
    rows = []
    for name in ("stage1", "stage2"):
        stage = getattr(paper().train, name)
        for batch in (stage.batch_clips, max(GPUS)):
            changed = stage.model_copy(update={"batch_clips": batch})
            alone = sum(Simulation(costs, assumptions, 1).step(changed)[1:])
            for gpus in GPUS:
                workers, *parts = Simulation(costs, assumptions, gpus).step(changed)
                used = alone / sum(parts) / gpus
                rows.append((name, batch, gpus, workers, *map(span, parts), f"{100 * used:.0f} %"))
    head = ("stage", "clips a step", "GPUs", "workers", "compute", "reading", "all-reduce", "of all GPUs used")
    return table(head, rows)


def limit_table(costs: Costs, assumptions: Assumptions) -> str:
    gpu, train = Simulation(costs, assumptions, 1), paper().train
    rows = []
    for data in (DAVIS, YOUTUBE):
        useful = math.ceil(data.val_frames / data.longest)
        longest = span(data.longest * gpu.video_frame(data))
        scores = f"{useful} cores" if data.scored else "scored by the benchmark's server"
        steps = f"{train.stage1.batch_clips} GPUs in stage 1, {train.stage2.batch_clips} in stage 2"
        held = f"the same GPUs, {round(data.holdout * data.train_videos)} videos after every epoch"
        rows += [
            (data.name, "`scribbles`", f"{FEWEST_ROWS} frames", f"{data.scribbled // FEWEST_ROWS} cores"),
            (data.name, "training steps", "a clip of the batch", steps),
            (data.name, "held-out scores", "a video", held),
            (data.name, "`predict`", "a video", f"{useful} GPUs; the longest video alone takes {longest}"),
            (data.name, "`evaluate`", "a video", scores),
        ]
    return table(("data", "stage", "smallest unit of work", "largest useful number"), rows, num_leading=4)


def growth_table() -> str:
    """Sizes that grow with the data, for YouTube-VOS and for GROWTH times its videos."""
    side = (YOUTUBE.pixels / PIXELS_480P) ** 0.5
    frames = YOUTUBE.train_frames + YOUTUBE.val_frames
    on_disk, as_table, as_objects = (frames * count for count in INDEX_BYTES)
    sizes = [
        ("`index.parquet` on disk", on_disk),
        ("the index as a table, in every process that reads it", as_table),
        ("peak memory of a process that makes videos of it", as_objects),
        ("`scribbles.parquet`, in the object store and in every process", YOUTUBE.scribbled * side * SCRIBBLE_BYTES),
        ("predicted masks in the driver's list of videos to score", YOUTUBE.val_frames * side * MASK_BYTES),
    ]
    rows = [(name, size(count), size(GROWTH * count)) for name, count in sizes]
    objects = YOUTUBE.objects * YOUTUBE.val_videos
    rows.append(("rows of `objects.csv` and of its MLflow table", f"{objects:.0f}", f"{GROWTH * objects:.0f}"))
    return table(("what grows", YOUTUBE.name, f"{GROWTH} times"), rows)


def tables(assumptions: Assumptions, folder: Path = RESULTS) -> dict[str, str]:
    """All tables by their name in docs/scaling.md."""
    costs = Costs.read(folder)
    return {
        "costs": cost_table(costs, assumptions),
        "davis": stage_table(costs, assumptions, DAVIS),
        "youtube-vos": stage_table(costs, assumptions, YOUTUBE),
        "assumptions": assumption_table(costs, assumptions),
        "steps": step_table(costs, assumptions),
        "limits": limit_table(costs, assumptions),
        "growth": growth_table(),
    }


def filled(page: str, by_name: dict[str, str]) -> str:
    """The page with the table below each `<!-- name -->` replaced."""
    for name, text in by_name.items():
        page = re.sub(rf"(<!-- {name} -->\n)(\|.*\n)*", lambda match, text=text: f"{match[1]}{text}\n", page)
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in vars(Assumptions()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    parser.add_argument("--write", action="store_true", help="write the tables to docs/scaling.md")
    options = vars(parser.parse_args())
    write = options.pop("write")
    by_name = tables(Assumptions(**options))
    print("\n\n".join(by_name.values()))
    if write:
        write_text(PAGE, filled(PAGE.read_text(), by_name))


if __name__ == "__main__":
    main()
