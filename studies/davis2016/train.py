"""Train variants of the study in both stages, all at the same time on one device.

python studies/davis2016/train.py PACK OUT --rows full,pce,dense --device cuda --loaders 4

PACK: DAVIS-2016's `fit` and `holdout` clips, packed by `ssvos pack` (README.md)

The variants are those of the recipe. In a variant this script reads two keys of its own: `masks: true` trains on the
dense masks of all training clips, `real: false` excludes the real clips from stage 2. An interrupted variant resumes, a
finished one is skipped. Several recipes are merged in their order.
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
CLI = "from ssvos.cli import main; main()"


def stage_file(recipe: dict, variant: str, stage: str, pack: Path, out: Path, after: Path | None) -> Path:
    """Write the parameter file of `ssvos fit` for one stage of a variant -> its path.

    after: folder of runs whose stage 2 this training continues from
    """
    variants = recipe.pop("variants")
    values = merge(recipe, variants[variant])
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
        fit |= {"init_checkpoint": str(after / variant / "stage2/checkpoint.pt") if after else "stage1/checkpoint.pt"}
    path = out / variant / f"{stage}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        YAML(typ="safe").dump(values | {"fit": fit}, file)
    return path


def train(
    variants: list[str], recipe: dict, pack: Path, out: Path, options: list[str], seconds: float, after: Path | None
) -> dict[str, str]:
    """Train the variants at the same time -> the status of each.

    options: of `ssvos fit`
    seconds: after which unfinished trainings are stopped
    """
    end, running, status = time.monotonic() + seconds, {}, {}
    waiting = {variant: ["stage2"] if after else ["stage1", "stage2"] for variant in variants}
    while waiting or running:
        for variant in [variant for variant in waiting if variant not in running]:
            stage = waiting[variant].pop(0)
            if not waiting[variant]:
                del waiting[variant]
            if not (out / variant / stage / "checkpoint.pt").is_file():
                path = stage_file(copy.deepcopy(recipe), variant, stage, pack, out, after)
                # closed with the process
                log = open(out / variant / f"{stage}.log", "a", encoding="utf-8")  # noqa: SIM115
                running[variant] = subprocess.Popen(
                    [sys.executable, "-c", CLI, "fit", path, *options], stdout=log, stderr=log
                )
        for variant, process in list(running.items()):
            if time.monotonic() > end:
                process.terminate()
            if process.poll() is not None:
                del running[variant]
                status[variant] = "done" if process.returncode == 0 else f"exit status {process.returncode}"
                if process.returncode:
                    waiting.pop(variant, None)
        time.sleep(0.5)
    return status


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pack", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--recipe", default=str(HERE / "recipe_cpu.yaml"), help="recipe files, separated by commas")
    parser.add_argument("--rows", default="pce,full,proximal,dense", help="variants, separated by commas")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--loaders", default="0")
    parser.add_argument("--cache", help="folder of rendered clips that the variants share")
    parser.add_argument("--after", type=Path, help="an earlier OUT: run only stage 2, from the end of its stage 2")
    parser.add_argument("--seconds", type=float, default=float("inf"))
    args = parser.parse_args()
    options = ["--device", args.device, "--loaders", args.loaders, *(["--cache", args.cache] if args.cache else [])]
    recipe, pack = reduce(merge, map(read_yaml, map(Path, args.recipe.split(",")))), args.pack.absolute()
    variants, after = args.rows.split(","), args.after and args.after.absolute()
    if missing := [name for name in variants if name not in recipe["variants"]]:
        raise ValueError(f"{args.recipe}: no variant {missing[0]!r}; choose one of {', '.join(recipe['variants'])}")
    statuses = train(variants, recipe, pack, args.out.absolute(), options, args.seconds, after)
    for variant, status in statuses.items():
        print(f"{variant}: {status}")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"train: {error}")
