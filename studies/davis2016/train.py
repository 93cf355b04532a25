"""Train rows of the study, each through both stages, side by side on one device.

python studies/davis2016/train.py PACK OUT --rows full,pce,dense --device cuda --loaders 4

PACK: DAVIS-2016's `fit` and `holdout` clips as `ssvos pack` leaves them (README.md). A row is a variant of the recipe.
Two keys of one are this script's: `masks: true` has the dense masks of all training clips as targets, `real: false`
leaves the real clips out of stage 2. A row that was stopped goes on where it was; one that is done is left alone.
Recipes are laid one over the other.
"""

import argparse
import copy
import subprocess
import sys
import time
from functools import reduce
from pathlib import Path

from ruamel.yaml import YAML

from ssvos.config import read_yaml
from ssvos.config.variants import merge

HERE = Path(__file__).parent
FIT = "from ssvos.cli import main; main()"


def stage_file(recipe: dict, row: str, stage: str, pack: Path, out: Path, after: Path | None) -> Path:
    """Write the file of `ssvos fit` for a stage of a row -> its path. after: the runs whose stage 2 it goes on from."""
    variants = recipe.pop("variants")
    values = merge(recipe, variants[row])
    dense = {"dense_every": 1} if values.pop("masks", False) else {}
    is_real = values.pop("real", True) and stage == "stage2"
    rendered = values["data"]["sources"][0] | dense
    fit = {"stage": stage, "out": stage}
    values["data"]["sources"] = [rendered]
    if is_real:
        real = {"name": "davis", "layout": "davis", "root": str(pack / "davis"), "train": "fit", "val": "val"}
        values["data"]["sources"] = [real | {"weight": 2.0} | dense, rendered | {"val": ""}]
        values["data"]["holdout_split"] = "holdout"
        fit |= {"index": str(pack / "index.parquet"), "scribbles": str(pack / "scribbles.parquet")}
    if stage == "stage2":
        fit |= {"init_checkpoint": str(after / row / "stage2/checkpoint.pt") if after else "stage1/checkpoint.pt"}
    path = out / row / f"{stage}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        YAML(typ="safe").dump(values | {"fit": fit}, file)
    return path


def train(
    rows: list[str], recipe: dict, pack: Path, out: Path, options: list[str], seconds: float, after: Path | None
) -> dict[str, str]:
    """Train the rows at the same time -> how each ended; those that are not done after `seconds` are stopped."""
    end, running, ended = time.monotonic() + seconds, {}, {}
    waiting = {row: ["stage2"] if after else ["stage1", "stage2"] for row in rows}
    while waiting or running:
        for row in [row for row in waiting if row not in running]:
            stage = waiting[row].pop(0)
            if not waiting[row]:
                del waiting[row]
            if not (out / row / stage / "checkpoint.pt").is_file():
                path = stage_file(copy.deepcopy(recipe), row, stage, pack, out, after)
                log = open(out / row / f"{stage}.log", "a", encoding="utf-8")  # noqa: SIM115, closed with the process
                running[row] = subprocess.Popen(
                    [sys.executable, "-c", FIT, "fit", path, *options], stdout=log, stderr=log
                )
        for row, process in list(running.items()):
            if time.monotonic() > end:
                process.terminate()
            if process.poll() is not None:
                del running[row]
                ended[row] = "done" if process.returncode == 0 else f"exit status {process.returncode}"
                if process.returncode:
                    waiting.pop(row, None)
        time.sleep(0.5)
    return ended


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pack", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--recipe", default=str(HERE / "recipe_cpu.yaml"), help="files, with commas between them")
    parser.add_argument("--rows", default="pce,full,proximal,dense")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--loaders", default="0")
    parser.add_argument("--cache", help="folder of rendered clips, which the rows share")
    parser.add_argument("--after", type=Path, help="an OUT: stage 2 alone, from the end of its rows' stage 2")
    parser.add_argument("--seconds", type=float, default=float("inf"))
    given = parser.parse_args()
    options = ["--device", given.device, "--loaders", given.loaders, *(["--cache", given.cache] if given.cache else [])]
    recipe, pack = reduce(merge, map(read_yaml, map(Path, given.recipe.split(",")))), given.pack.absolute()
    rows, after = given.rows.split(","), given.after and given.after.absolute()
    if missing := [row for row in rows if row not in recipe["variants"]]:
        raise ValueError(f"{given.recipe}: no row {missing[0]!r}; choose of {', '.join(recipe['variants'])}")
    for row, how in train(rows, recipe, pack, given.out.absolute(), options, given.seconds, after).items():
        print(f"{row}: {how}")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"train: {error}")
