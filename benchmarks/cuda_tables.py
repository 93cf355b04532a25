"""The tables of docs/speed.md with times on a GPU; `not run` without a result.

    python benchmarks/cuda_tables.py [--take FOLDER] [--write]

It prints the tables. --take copies the results of cuda_check.py from its folder to benchmarks/results first. --write
writes the tables to docs/speed.md.
"""

import argparse
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from measure import RESULTS
from scaling import filled, span, table

from ssvos.files import write_text

PAGE = Path(__file__).parent.parent / "docs" / "speed.md"
NOT_RUN = "not run"
STEPS = ("plain_forward", "step_no_crf", "step_half_scale", "step_full_scale")
FRAMES = (
    "plain_forward",
    "1 objects, per_object keys",
    "3 objects, per_object keys",
    "1 objects, shared keys",
    "3 objects, shared keys",
    "1 object, in chunks",
)
ATTENTION_VARIANTS = ("scribble", "non_local", "criss_cross", "point_wise", "non_local_explicit")


def read(folder: Path, name: str) -> dict:
    """Read a script's result on a GPU; empty without one."""
    path = folder / f"{name}_cuda.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def table_or_not_run(head: tuple[str, ...], rows: list[tuple], num_leading: int = 1) -> str:
    """A Markdown table; without rows it has one row of `not run`."""
    return table(head, rows or [(NOT_RUN,) * len(head)], num_leading)


def time_and_ratio(run: dict, seconds: str, name: str) -> str:
    """A time, and its ratio to a plain forward. seconds: the key of the times in the run."""
    if name not in run[seconds]:
        return ""
    forwards = "" if name == "plain_forward" else f" ({run['in_plain_forwards'][name]:.2f})"
    return span(run[seconds][name]) + forwards


def machines(folder: Path) -> str:
    check = read(folder, "check")
    last_lines = check.get("parts", {}).get("tests", {}).get("last_lines", [])
    passed = next((line.strip("= ") for line in reversed(last_lines) if " in " in line and "s" in line), NOT_RUN)
    gpu = check.get("surroundings", {})
    rows = [("`tests/test_cuda.py`", ": ".join(filter(None, (gpu.get("card"), passed))), gpu.get("torch", ""))]
    for name in ("train_step", "inference", "crf", "attention", "compile"):
        result = read(folder, name)
        rows.append((f"`bench_{name}.py`", result.get("machine", NOT_RUN), result.get("torch", "")))
    return table_or_not_run(("script", "machine", "PyTorch"), rows, num_leading=3)


def train_steps(folder: Path) -> str:
    rows = [
        (
            run["backbone"],
            run["batch"],
            run["dtype"],
            "yes" if run["compiled"] else "no",
            *(time_and_ratio(run, "seconds", name) for name in STEPS),
            f"{run['peak_gib']:.2g} GiB",
        )
        for run in read(folder, "train_step").get("runs", [])
    ]
    head = ("backbone", "clips", "precision", "compiled", "plain forward", "without a CRF loss", "at half scale")
    return table_or_not_run((*head, "at full scale", "peak memory"), rows, num_leading=4)


def inference(folder: Path) -> str:
    rows = [
        (run["dtype"], *(time_and_ratio(run, "seconds_a_frame", name) for name in FRAMES))
        for run in read(folder, "inference").get("runs", [])
    ]
    return table_or_not_run(("precision", *(name.replace("_", " ") for name in FRAMES)), rows)


def inference_memory(folder: Path) -> str:
    memory = read(folder, "inference").get("memory", {})
    return table_or_not_run(
        ("peak memory", "GiB"), [(key.removeprefix("peak_gib_").replace("_", " "), memory[key]) for key in memory]
    )


def filters(folder: Path) -> str:
    rows = []
    for run in read(folder, "crf").get("runs", []):
        for scale in ("half_scale", "full_scale"):
            one = run[scale]
            exact = f"{one['exact_value_and_gradient_ms']} ms"
            fused = f"{one['fused_value_and_gradient_ms']} ms" if "fused_value_and_gradient_ms" in one else NOT_RUN
            rows.append(
                (
                    run["size"],
                    scale.removesuffix("_scale"),
                    f"{run['resnet101_forward_ms']} ms",
                    f"{one['lattice_value_and_gradient_ms']} ms",
                    exact if one["exact"] == "all points" else f"{exact}, extrapolated",
                    fused,
                    one.get("gradient_cosine", ""),
                )
            )
    head = (
        "size",
        "scale",
        "plain forward",
        "lattice",
        "exact in chunks",
        "exact, fused",
        "lattice's gradient, cosine",
    )
    return table_or_not_run(head, rows, num_leading=2)


def attention(folder: Path) -> str:
    modules = read(folder, "attention").get("modules", {})
    rows = [
        (
            name.replace("_", " "),
            *(f"{modules[name][run]['ms']} ms" for run in ("forward", "forward_backward")),
            f"{modules[name]['forward_backward']['peak_mib']} MiB",
        )
        for name in ATTENTION_VARIANTS
        if name in modules
    ]
    return table_or_not_run(("module", "forward", "forward and backward", "peak memory of both"), rows)


def compiled(folder: Path) -> str:
    result = read(folder, "compile")
    first = f"{result['backbone']}, {result['size'][0]}x{result['size'][1]}" if result else "compiled"
    return table_or_not_run(
        (first, "graphs after each call", "graph breaks", "first call", "uncompiled", "compiled"),
        list(_compiled_rows(result.get("runs", {}))),
    )


def _compiled_rows(runs: dict) -> Iterator[tuple]:
    for name, run in runs.items():
        if "not_run" in run:
            yield name, NOT_RUN, "", "", "", ""
            continue
        unit = next(key for key in run if key.endswith("_plain")).removesuffix("plain")
        yield (
            name,
            ", ".join(map(str, run["graphs_after_each"])),
            run["graph_breaks_after_each"][-1],
            f"{run['seconds_of_the_first']} s",
            *(span(run[unit + kind]) for kind in ("plain", "compiled")),
        )


def tables(folder: Path = RESULTS) -> dict[str, str]:
    """All tables by their name in docs/speed.md."""
    return {
        "cuda machines": machines(folder),
        "cuda train step": train_steps(folder),
        "cuda inference": inference(folder),
        "cuda inference memory": inference_memory(folder),
        "cuda filters": filters(folder),
        "cuda attention": attention(folder),
        "cuda compiled": compiled(folder),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--take", type=Path, help="folder of results to copy to benchmarks/results first")
    parser.add_argument("--write", action="store_true", help="write the tables to docs/speed.md")
    args = parser.parse_args()
    for path in sorted(args.take.glob("*_cuda.json")) if args.take else []:
        shutil.copy(path, RESULTS)
    by_name = tables()
    print("\n\n".join(by_name.values()))
    if args.write:
        write_text(PAGE, filled(PAGE.read_text(encoding="utf-8"), by_name))


if __name__ == "__main__":
    main()
