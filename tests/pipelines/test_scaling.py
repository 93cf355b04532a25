"""docs/scaling.md contains the tables that its script prints; hand-computed cases check the script's arithmetic."""

import json
import sys

import pytest
from sandbox import PROJECT

from pipelines.cluster import ray_cluster as cluster

sys.path.insert(0, str(PROJECT / "benchmarks"))
import scaling
from scaling_model import (
    DAVIS,
    YOUTUBE,
    Assumptions,
    Costs,
    Simulation,
    divisor,
    forward_flop,
    gradient_bytes,
    lengths,
    paper,
    schedule,
)

COSTS = Costs(
    train_seconds=4.0,
    train_forwards=4.0,
    infer_seconds=(1.0, 3.0),
    infer_forwards=(2.0, 4.0),
    scribble=0.010,
    score=0.005,
)
ASSUMPTIONS = Assumptions(gpu_tflops=10, link_gb=10, cores_per_gpu=8, read_ms=5)


@pytest.fixture(scope="module")
def tables() -> dict[str, str]:
    return scaling.tables(Assumptions())


def test_the_page_contains_the_tables_that_the_script_prints(tables):
    page = scaling.PAGE.read_text()
    for name, table in tables.items():
        assert f"<!-- {name} -->\n{table}\n\n" in page, f"{name}: python benchmarks/scaling.py --write"


def test_a_new_table_replaces_the_old_one_and_nothing_else_changes():
    page = "before\n\n<!-- a -->\n| old |\n| --- |\n\nbetween | bars\n\n<!-- b -->\n\nafter\n"
    once = scaling.filled(page, {"a": "| new |", "b": "| b |"})
    assert once == "before\n\n<!-- a -->\n| new |\n\nbetween | bars\n\n<!-- b -->\n| b |\n\nafter\n"
    assert scaling.filled(once, {"a": "| new |", "b": "| b |"}) == once


def test_measured_costs_come_from_the_result_files(tmp_path):
    counts = ("1 objects, per_object keys", "3 objects, per_object keys")
    step = {
        "threads": 2,
        "dtype": "float32",
        "seconds": {"step_half_scale": 8.0},
        "in_plain_forwards": {"step_half_scale": 3.5},
    }
    inference = {
        "seconds_a_frame": dict(zip(counts, (1.0, 2.0), strict=True)),
        "in_plain_forwards": dict(zip(counts, (1.5, 3.0), strict=True)),
    }
    results = {
        "train_step": {
            "size": [480, 427],
            "frames": 4,
            "runs": [{"threads": 1, "dtype": "float32"}, {"threads": 4, "dtype": "bfloat16"}, step],
        },
        "inference": {"runs": [inference]},
        "scribbles": {"ssvos_and_png": {"ms_mean": 12.0}},
        "bench_metrics": {
            "runs": [
                {"masks": "made", "ours_ms_per_object_frame": 9.0},
                {"masks": "DAVIS-2016", "ours_ms_per_object_frame": 4.0},
            ]
        },
    }
    for name, result in results.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(result))
    # 8 s for 4 frames of half of 480x854: 4 s per full frame
    assert Costs.read(tmp_path) == Costs(4.0, 3.5, (1.0, 2.0), (1.5, 3.0), 0.012, 0.004)


def test_scribble_time_of_davis_on_8_gpus_equals_the_hand_computed_one():
    # 4209 + 1999 = 6208 frames make four tasks of 25 for each of 64 cores: 4 x 25 x 10 ms
    assert Simulation(COSTS, ASSUMPTIONS, 8).scribbles(DAVIS) == pytest.approx(1.0)


def test_a_printed_cell_equals_the_hand_computed_one(tables):
    # four rounds of 25 frames at the measured 11.99 ms: 1.2 s
    (row,) = [line for line in tables["davis"].splitlines() if "`scribbles`" in line]
    assert row.split(" | ")[3] == f"{4 * 25 * Costs.read(scaling.RESULTS).scribble:.3g} s"


def test_times_of_a_training_step_equal_the_hand_computed_ones():
    # stage 1 of the paper: 4 clips of 8 frames of 240x480; 4 workers take one clip each
    workers, computing, reading, exchange = Simulation(COSTS, ASSUMPTIONS, 8).step(paper().train.stage1)
    assert workers == 4
    assert reading == pytest.approx(8 * 0.005)
    assert computing == pytest.approx(8 * (240 * 480) / (480 * 854) * 4 * forward_flop() / 10e12)
    # a ring all-reduce sends each gradient 2 (n - 1) / n times
    assert exchange == pytest.approx(1.5 * gradient_bytes() / 10e9)
    # without GPUs the time is that measured on two cores
    assert Simulation(COSTS, ASSUMPTIONS, 0).step(paper().train.stage1)[1] == pytest.approx(32 * 115200 / 409920 * 4.0)


def test_counted_operations_equal_those_published_for_resnet_101():
    # He et al., Table 1: 7.6e9 multiply-adds at 224x224; with the shortcuts' convolutions 7.8e9
    assert forward_flop() == pytest.approx(2 * 7.8e9 * (480 * 854) / 224**2, rel=0.02)


@pytest.mark.parametrize("batch_clips", [1, 2, 4, 6, 7, 64])
@pytest.mark.parametrize("gpus", [1, 3, 8, 64])
def test_the_number_of_workers_equals_the_pipelines(batch_clips, gpus, monkeypatch):
    monkeypatch.delenv("SSVOS_WORKERS", raising=False)
    assert divisor(batch_clips, gpus) == cluster._plan_workers([(8, 1)] * gpus, batch_clips).count


def test_a_video_goes_to_the_first_free_worker():
    assert schedule([4, 3, 3, 2], 2) == 6  # 4 + 2 and 3 + 3
    assert schedule([4, 3, 3, 2], 1) == 12
    assert schedule([4, 3, 3, 2], 100) == 4


@pytest.mark.parametrize("data", [DAVIS, YOUTUBE])
def test_simulated_video_lengths_have_the_data_sets_total_and_maximum(data):
    frames = lengths(data)
    assert len(frames) == data.val_videos and max(frames) == data.longest
    assert sum(frames) == pytest.approx(data.val_frames, abs=data.val_videos / 2)


def test_the_longest_video_limits_prediction_time():
    at_64, at_1000 = (Simulation(COSTS, ASSUMPTIONS, gpus).predict(DAVIS) for gpus in (64, 1000))
    assert at_64 == at_1000 == pytest.approx(104 * Simulation(COSTS, ASSUMPTIONS, 64).video_frame(DAVIS))


@pytest.mark.parametrize(("seconds", "text"), [(0.0, "-"), (0.0181, "18.1 ms"), (90, "90 s"), (3600, "60 min")])
def test_spans_are_formatted_with_a_suitable_unit(seconds, text):
    assert scaling.span(seconds) == text
