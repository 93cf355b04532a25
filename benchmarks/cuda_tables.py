"""The tables of docs/speed.md that a GPU's times fill; `not run` where there is no result.

    python benchmarks/cuda_tables.py [--take FOLDER] [--write]

--take: the folder that cuda_check.py wrote; its results are put beside the others first. Prints the tables; --write
puts them into docs/speed.md.
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
    """A script's result on a GPU; empty where there is none."""
    path = folder / f"{name}_cuda.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def lines(head: tuple[str, ...], rows: list[tuple], texts: int = 1) -> str:
    return table(head, rows or [(NOT_RUN,) * len(head)], texts)


def both(run: dict, seconds: str, name: str) -> str:
    """A time, and what it is in plain forwards."""
    if name not in run[seconds]:
        return ""
    forwards = "" if name == "plain_forward" else f" ({run['in_plain_forwards'][name]:.2f})"
    return span(run[seconds][name]) + forwards


def machines(folder: Path) -> str:
    check = read(folder, "check")
    told = check.get("parts", {}).get("tests", {}).get("last_lines", [])
    passed = next((line.strip("= ") for line in reversed(told) if " in " in line and "s" in line), NOT_RUN)
    card = check.get("surroundings", {})
    rows = [("`tests/test_cuda.py`", ": ".join(filter(None, (card.get("card"), passed))), card.get("torch", ""))]
    for name in ("train_step", "inference", "crf", "attention", "compile"):
        found = read(folder, name)
        rows.append((f"`bench_{name}.py`", found.get("machine", NOT_RUN), found.get("torch", "")))
    return lines(("script", "machine", "PyTorch"), rows, texts=3)


def train_steps(folder: Path) -> str:
    rows = [
        (
            run["backbone"],
            run["batch"],
            run["dtype"],
            "yes" if run["compiled"] else "no",
            *(both(run, "seconds", name) for name in STEPS),
            f"{run['peak_gib']:.2g} GiB",
        )
        for run in read(folder, "train_step").get("runs", [])
    ]
    head = ("backbone", "clips", "precision", "compiled", "plain forward", "without a CRF loss", "at half scale")
    return lines((*head, "at full scale", "peak memory"), rows, texts=4)


def inference(folder: Path) -> str:
    rows = [
        (run["dtype"], *(both(run, "seconds_a_frame", name) for name in FRAMES))
        for run in read(folder, "inference").get("runs", [])
    ]
    return lines(("precision", *(name.replace("_", " ") for name in FRAMES)), rows)


def inference_memory(folder: Path) -> str:
    memory = read(folder, "inference").get("memory", {})
    return lines(
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
    return lines(head, rows, texts=2)


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
    return lines(("module", "forward", "forward and backward", "peak memory of both"), rows)


def compiled(folder: Path) -> str:
    found = read(folder, "compile")
    what = f"{found['backbone']}, {found['size'][0]}x{found['size'][1]}" if found else "compiled"
    return lines(
        (what, "graphs after each call", "graph breaks", "first call", "as it is", "compiled"),
        list(_compiled_rows(found.get("runs", {}))),
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
    """All tables, by the name that their place in docs/speed.md has."""
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
    parser.add_argument("--take", type=Path, help="a folder of results to put beside the others first")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/speed.md")
    args = parser.parse_args()
    for path in sorted(args.take.glob("*_cuda.json")) if args.take else []:
        shutil.copy(path, RESULTS)
    found = tables()
    print("\n\n".join(found.values()))
    if args.write:
        write_text(PAGE, filled(PAGE.read_text(encoding="utf-8"), found))


if __name__ == "__main__":
    main()
