"""The GPU tables of docs/speed.md equal the benchmark results; without a result they say `not run`."""

import json
import sys

import pytest
from sandbox import PROJECT

sys.path.insert(0, str(PROJECT / "benchmarks"))
import cuda_tables
from cuda_check import ON_REQUEST, PARALLEL, SEQUENTIAL

STEPS = {"plain_forward": 0.02, "step_no_crf": 0.05, "step_half_scale": 0.06, "step_full_scale": 0.07}
RESULTS = {
    "check": {
        "surroundings": {"card": "A card", "torch": "2.11.0"},
        "parts": {"tests": {"last_lines": ["SKIPPED [1] tests/test_cuda.py: no", "58 passed, 1 skipped in 20.10s"]}},
    },
    "train_step": {
        "machine": "A card; a processor",
        "torch": "2.11.0",
        "runs": [
            {
                "backbone": "resnet101",
                "batch": 4,
                "compiled": True,
                "dtype": "tf32",
                "seconds": STEPS,
                "in_plain_forwards": {name: value / 0.02 for name, value in STEPS.items()},
                "peak_gib": 7.26,
            }
        ],
    },
    "inference": {
        "runs": [
            {
                "dtype": "bfloat16",
                "seconds_a_frame": {"plain_forward": 0.01, "3 objects, shared keys": 0.021},
                "in_plain_forwards": {"plain_forward": 1.0, "3 objects, shared keys": 2.1},
            }
        ],
        "memory": {"peak_gib_at_this_size_3_frames": 0.7},
    },
    "crf": {
        "runs": [
            {
                "size": "240x480",
                "resnet101_forward_ms": 5.1,
                "half_scale": {
                    "lattice_value_and_gradient_ms": 4.0,
                    "exact_value_and_gradient_ms": 9.0,
                    "exact": "all points",
                    "fused_value_and_gradient_ms": 0.5,
                    "gradient_cosine": 0.999,
                },
                "full_scale": {
                    "lattice_value_and_gradient_ms": 8.0,
                    "exact_value_and_gradient_ms": 90.0,
                    "exact": "extrapolated from 1 of 2 points",
                },
            }
        ]
    },
    "attention": {
        "modules": {"non_local": {"forward": {"ms": 1.5}, "forward_backward": {"ms": 4.5, "peak_mib": 45.0}}}
    },
    "compile": {
        "backbone": "resnet18",
        "size": [240, 480],
        "runs": {
            "inference, 1 objects": {
                "graphs_after_each": [2, 2, 2],
                "graph_breaks_after_each": [0, 0, 0],
                "seconds_of_the_first": 12.5,
                "seconds_a_frame_plain": 0.008,
                "seconds_a_frame_compiled": 0.004,
            },
            "training step": {"not_run": "the budget of 35 s was spent"},
        },
    },
}
ROWS = {
    "cuda machines": [
        "| `tests/test_cuda.py` | A card: 58 passed, 1 skipped in 20.10s | 2.11.0 |",
        "| `bench_train_step.py` | A card; a processor | 2.11.0 |",
    ],
    "cuda train step": [
        "| resnet101 | 4 | tf32 | yes | 20 ms | 50 ms (2.50) | 60 ms (3.00) | 70 ms (3.50) | 7.3 GiB |"
    ],
    "cuda inference": ["| bfloat16 | 10 ms |  |  |  | 21 ms (2.10) |  |"],
    "cuda inference memory": ["| at this size 3 frames | 0.7 |"],
    "cuda filters": [
        "| 240x480 | half | 5.1 ms | 4.0 ms | 9.0 ms | 0.5 ms | 0.999 |",
        "| 240x480 | full | 5.1 ms | 8.0 ms | 90.0 ms, extrapolated | not run |  |",
    ],
    "cuda attention": ["| non local | 1.5 ms | 4.5 ms | 45.0 MiB |"],
    "cuda compiled": [
        "| resnet18, 240x480 | graphs after each call | graph breaks | first call | uncompiled | compiled |",
        "| inference, 1 objects | 2, 2, 2 | 0 | 12.5 s | 8 ms | 4 ms |",
        "| training step | not run |  |  |  |  |",
    ],
}


def test_page_has_the_tables_of_the_committed_results():
    page = cuda_tables.PAGE.read_text(encoding="utf-8")
    for name, table in cuda_tables.tables().items():
        assert f"<!-- {name} -->\n{table}\n" in page, f"{name}: python benchmarks/cuda_tables.py --write"


@pytest.mark.parametrize("name", ROWS)
def test_result_becomes_table_rows(name, tmp_path):
    for script, result in RESULTS.items():
        (tmp_path / f"{script}_cuda.json").write_text(json.dumps(result))
    table = cuda_tables.tables(tmp_path)[name].splitlines()
    assert not [row for row in ROWS[name] if row not in table]


@pytest.mark.parametrize("name", ROWS)
def test_table_without_result_says_not_run(name, tmp_path):
    rows = cuda_tables.tables(tmp_path)[name].splitlines()[2:]
    assert rows and all("not run" in row for row in rows)


def test_every_part_of_the_gpu_check_is_a_script_whose_result_has_a_table():
    parts = {**PARALLEL, **SEQUENTIAL, **ON_REQUEST}
    scripts = {part.command.split()[0]: part.file for part in parts.values() if part.file}
    assert all((PROJECT / "benchmarks" / name).is_file() for name in scripts)
    assert {file.removesuffix("_cuda.json") for file in scripts.values()} == RESULTS.keys() - {"check"}
