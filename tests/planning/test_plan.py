"""Plans: counts against a hand calculation, the probe against direct counts, and what the command says."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import TINY_MODEL, TINY_STAGE, TinyData, changed

from ssvos.cli import main
from ssvos.config import Config, DataConfig, PredictConfig, SourceConfig, TestTimeTrainingConfig, read_yaml
from ssvos.config.variants import Params, params_from
from ssvos.data.index import read_index
from ssvos.data.preparation import sequences_by_split
from ssvos.hardware import Machine, this_machine
from ssvos.losses.joint import joint_loss
from ssvos.models.network import Network
from ssvos.planning import plan
from ssvos.planning.dummy_data import smooth_frames, strokes
from ssvos.planning.plan import RunPlan, make_plan, num_steps
from ssvos.planning.plan_text import as_table, describe, duration, size
from ssvos.planning.presets import compose
from ssvos.planning.profiler import Line, Probe, probe
from ssvos.planning.video_counts import count_sources

PROJECT = Path(__file__).parents[2]
TWO_CORES = Machine(cpus=2, memory=8 * 10**9)
# seconds and bytes that are easy to reckon with: a frame 10 ms and 1 us a pixel, a regularised one 2 ms and 0.1 us
BY_HAND = Probe(
    training=Line(0.01, 1e-6),
    regularizer=Line(0.002, 1e-7),
    update=0.006,
    segmenting=Line(0.005, 1e-6),
    refining=Line(0.003, 2e-6),
    saved=Line(0.0, 200.0),
    regularizer_saved=Line(0.0, 300.0),
    power=1,
    resting=7,
    parameters=1000,
    trainable=600,
)
STAGE = TINY_STAGE.model_copy(
    update={"epochs": 3, "clips_per_epoch": 10, "batch_clips": 4, "clip_frames": 5, "height": 100, "width": 100}
)


@pytest.fixture
def free_reading(monkeypatch):
    monkeypatch.setattr(plan, "reading_seconds", lambda *_: 0.001)


@pytest.fixture(scope="module")
def tiny_plan(tiny_config) -> RunPlan:
    return make_plan(tiny_params(tiny_config), TWO_CORES)


def tiny_params(config: Config) -> Params:
    tune = config.tune.model_copy(update={"trials": 3})
    config = config.model_copy(update={"tune": tune})
    return Params(config, {"ours": config})


def costs(config: Config, sources=None) -> plan._Costs:
    return plan._Costs(config, BY_HAND, TWO_CORES, sources)


def on_disk(data: TinyData, **more) -> Config:
    source = SourceConfig(name="own", layout="davis", root=str(data.roots["embedded"]))
    return data.config.model_copy(update={"data": DataConfig(name="own", sources=(source,), **more)})


def test_clips_that_fill_no_batch_are_no_step():
    assert num_steps(STAGE) == 2
    demo = params_from(compose(PROJECT / "conf", "demo"), "demo").base.train
    assert (num_steps(demo.stage1), num_steps(demo.stage2)) == (63, 45)


def test_training_time_is_steps_times_frames_reading_and_update(tiny_config, free_reading):
    """2 steps x 3 epochs; a worker has 2 clips: 5 frames x (0.01 + 0.02), one regularised 0.002 + 0.002, the update
    0.006, and 2 x 5 frames to read."""
    assert costs(tiny_config).training(STAGE, workers=2) == pytest.approx(6 * (0.15 + 0.004 + 0.006 + 0.01))
    alone = 6 * (5 * (0.01 + 0.04) + 0.006 + 0.006 + 20 * 0.001)
    assert costs(tiny_config).training(STAGE, workers=1) == pytest.approx(alone)
    every = STAGE.model_copy(update={"regularized_frames": 0})
    assert costs(tiny_config).training(every, 2) == pytest.approx(6 * (0.15 + 5 * 0.004 + 0.006 + 0.01))


def test_scoring_time_counts_held_out_frames_after_every_epoch(tiny_config, tiny_data, free_reading):
    (counts,) = count_sources(on_disk(tiny_data))
    three = replace(counts, holdout=(6, 6, 30))
    limited = STAGE.model_copy(update={"holdout_frames": 6})
    # two workers, one of them with two videos of six frames
    assert costs(tiny_config, [three]).scoring(limited, 2) == pytest.approx(3 * 12 * (0.005 + 0.01 + 0.001))
    assert costs(tiny_config, [three]).scoring(STAGE, 1) == pytest.approx(3 * 42 * (0.005 + 0.01 + 0.001))
    # without masks: four clips a video, of five frames, forward only
    bare = replace(three, has_masks=False)
    assert costs(tiny_config, [bare]).scoring(STAGE, 1) == pytest.approx(3 * 12 * 5 * (0.02 / 3 + 0.001))


def test_masks_take_a_pass_and_the_refinement_a_frame_and_the_online_steps_a_video(
    tiny_config, tiny_data, free_reading
):
    (counts,) = count_sources(on_disk(tiny_data))
    two = replace(counts, judged=(10, 20), objects=2.0)
    predict = PredictConfig(height=100, width=100, test_time_training=TestTimeTrainingConfig(steps=4, clip_frames=3))
    config = tiny_config.model_copy(update={"predict": predict})
    frame, step = 0.005 + 0.01 + 0.003 + 0.02 + 0.001, 3 * (0.02 + 0.003) + 0.006
    assert costs(config, [two]).masks() == pytest.approx((30 * frame + 2 * 4 * 2 * step) / 2)


def test_memory_is_activations_and_state(tiny_config):
    """2 clips of 100x100, 5 frames x 200 bytes, one regularised x 300; weights, gradients, Adam, average, buckets."""
    averaged = STAGE.model_copy(update={"ema_decay": 0.9})
    tensors = 20000 * (5 * 200 + 300) + 4 * (2 * 1000 + 4 * 600)
    assert costs(tiny_config).memory(averaged, 2, on_gpu=False) == pytest.approx(1.2 * tensors + 7)
    alone = 40000 * (5 * 200 + 300) + 4 * (1000 + 3 * 600)
    assert costs(tiny_config).memory(STAGE, 1, on_gpu=True) == pytest.approx(1.1 * alone + 6e8)
    in_parts = STAGE.model_copy(update={"batch_clips": 4 * STAGE.batch_clips, "accumulate": 4})
    assert costs(tiny_config).memory(in_parts, 1, on_gpu=True) == pytest.approx(1.1 * alone + 6e8)


def test_videos_are_counted_as_prepare_shares_them_out(tiny_data):
    prepared = sequences_by_split(read_index(tiny_data.index))
    for config in (tiny_data.config, on_disk(tiny_data, holdout_fraction=0.3)):
        (counts,) = count_sources(config)
        found = {"train": len(counts.train), "holdout": len(counts.holdout), "val": len(counts.judged)}
        assert found == prepared == {"train": 2, "holdout": 1, "val": 1}
        assert set(counts.train + counts.holdout + counts.judged) == {6} and counts.num_frames == 24
        assert counts.size == (48, 64) and counts.has_masks and counts.objects >= 1


def test_faulty_lists_are_found_by_counting(tiny_data):
    with pytest.raises(ValueError, match=r"fit\.txt: no such list; choose one of train, val"):
        count_sources(on_disk(tiny_data, holdout_split="fit"))
    source = SourceConfig(name="embedded", layout="embedded", train="fit")
    config = tiny_data.config.model_copy(update={"data": DataConfig(name="a", sources=(source,))})
    with pytest.raises(ValueError, match="fit: the embedded data set has no such list"):
        count_sources(config)


def saved_bytes(network: Network, height: int, width: int) -> int:
    """Counted directly: the storages that a forward pass keeps, weights left out."""
    frames = torch.from_numpy(smooth_frames((height, width))).permute(0, 3, 1, 2)[None].float() / 255
    scribble = torch.from_numpy(strokes((height, width)))[None]
    weights = {p.untyped_storage().data_ptr() for p in network.parameters()}
    found: dict[int, int] = {}

    def keep(tensor):
        found[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    config = Config(data=DataConfig(name="a", sources=(SourceConfig(name="a", layout="embedded"),))).loss
    plain = config.model_copy(update={"regularizer": "none"})
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        joint_loss(network(frames, scribble), frames, scribble[:, None].expand(-1, 2, -1, -1), plain, 0.5)
    return sum(count for place, count in found.items() if place not in weights)


@pytest.mark.parametrize(("kind", "power"), [("lattice", 1), ("exact", 2)])
@pytest.mark.parametrize("other", ["none", "scribble_supervised"])
def test_the_proximal_loss_is_part_of_what_a_regularised_frame_costs(tiny_config, kind, power, other):
    def probed(weight: float):
        proximal = tiny_config.loss.proximal.model_copy(update={"weight": weight, "filter": kind, "scale": 1.0})
        loss = tiny_config.loss.model_copy(update={"regularizer": other, "proximal": proximal})
        config = tiny_config.model_copy(update={"loss": loss})
        return probe(config, (48, 64), (48, 64), 1, torch.device("cpu"))

    without, on = probed(0.0), probed(1.0)
    assert on.power == power and on.regularizer.at(3072.0**power) > 0
    # one of them is kept from the forward pass: nodes and weights of the lattice, or all pairs of pixels
    assert on.step_bytes(3072, 2, 1) > without.step_bytes(3072, 2, 1) + (3e7 if kind == "exact" else 1e3)
    assert on.step_bytes(3072, 2, 0) == pytest.approx(without.step_bytes(3072, 2, 0), rel=0.05)


def test_saved_bytes_scale_to_sizes_that_were_not_probed(tiny_config):
    measured = probe(tiny_config, (96, 128), (96, 128), 1, torch.device("cpu"))
    torch.manual_seed(0)
    network = Network(TINY_MODEL).train()
    for height, width in ((96, 256), (192, 256)):
        logits = 2 * 36 * height * width  # the loss's part that no saved tensor shows
        counted = saved_bytes(network, height, width)
        assert measured.step_bytes(height * width, 2, 0) - logits == pytest.approx(counted, rel=0.15)
    assert measured.parameters == sum(p.numel() for p in network.parameters())


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs Linux's account of memory")
def test_peak_memory_is_that_of_a_real_step():
    """The demo's larger stage, one worker's clip, in a process of its own."""
    params = params_from(compose(PROJECT / "conf", "demo"), "demo")
    program = """
import json, sys, torch
import ssvos.training.trainer
from ssvos.config import Config
from ssvos.losses.joint import joint_loss
from ssvos.models.network import Network
from ssvos.planning.dummy_data import smooth_frames, strokes
torch.set_num_threads(1)
config = Config.model_validate(json.loads(sys.stdin.read()))
stage, size = config.train.stage2, (config.train.stage2.height, config.train.stage2.width)
def kilobytes(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name))
network = Network(config.model)
optimizer = torch.optim.Adam(network.parameters())
def step(size):
    frames = torch.from_numpy(smooth_frames(size)).permute(0, 3, 1, 2)[None].float() / 255
    frames = frames.repeat(1, stage.clip_frames // 2, 1, 1, 1)
    scribble = torch.from_numpy(strokes(size))[None]
    target = scribble[:, None].expand(-1, stage.clip_frames, -1, -1)
    loss = joint_loss(network(frames, scribble), frames, target, config.loss, 0.0, torch.tensor([[1]]))
    loss.total.backward()
    optimizer.step()
    optimizer.zero_grad()
step((48, 80))
before = kilobytes("VmRSS")
step(size)
step(size)
print(before, kilobytes("VmHWM"))  # getrusage would give this process its parent's peak
"""
    given = json.dumps(params.base.model_dump(mode="json"))
    done = subprocess.run(
        [sys.executable, "-c", program], input=given, capture_output=True, text=True, check=True, cwd=PROJECT
    )
    before, after = (1024 * int(word) for word in done.stdout.split())
    config = params.variants["ours"]
    measured = replace(probe(config, (256, 448), (128, 224), 2, torch.device("cpu")), resting=before)
    estimate = plan._Costs(config, measured, TWO_CORES, None).memory(config.train.stage2, 2, on_gpu=False)
    assert estimate == pytest.approx(after, rel=0.25)
    assert estimate - before == pytest.approx(after - before, rel=0.4)


def test_a_line_goes_through_its_points_and_never_falls():
    assert Line.through((100, 300), (2.0, 6.0)) == (0.0, 0.02)
    assert Line.through((100, 300), (3.0, 5.0)).at(200) == pytest.approx(4.0)
    assert Line.through((100, 300), (5.0, 4.0)) == (4.0, 0.0)
    assert Line.through((100, 100), (2.0, 2.0)).at(200) == pytest.approx(4.0)


@pytest.mark.parametrize(
    ("machine", "batch", "workers"),
    [
        (Machine(2, 1), 2, 2),
        (Machine(1, 1), 2, 1),
        (Machine(16, 1), 3, 1),
        (Machine(16, 1), 8, 2),
        (Machine(8, 1, num_gpus=4), 8, 4),
        (Machine(8, 1, num_gpus=4), 6, 3),
        (Machine(8, 1, num_gpus=4), 1, 1),
    ],
)
def test_workers_divide_the_batch(machine, batch, workers):
    assert machine.workers(batch) == workers
    assert machine.workers(batch, requested=0) == machine.workers(batch, requested=1) == 1


def test_too_many_workers_are_refused():
    with pytest.raises(ValueError, match="3 requested, the machine has 2 CPUs"):
        TWO_CORES.workers(6, requested=3)
    with pytest.raises(ValueError, match="2 do not divide a batch of 3 clips"):
        TWO_CORES.workers(3, requested=2)


def test_this_machine_has_a_core_and_memory():
    machine = this_machine("cpu")
    assert machine.cpus >= 1 and machine.memory > 10**8 and machine.num_gpus == 0
    with pytest.raises(ValueError, match="unknown"):
        this_machine("abacus")


def test_a_plan_says_what_will_be_done(tiny_plan):
    text = describe(tiny_plan, "params.yaml, data set tiny")
    assert "2 videos of train to train on, 1 held out (of train) to choose the checkpoint, 1 of val to judge" in text
    assert "24 frames of 48x64" in text
    assert "2 epochs x 4 clips = 2 steps an epoch, 4 in all; clips of 3 frames x 48x64, batch 2, 1 a worker" in text
    assert "2 CPU cores, 8 GB memory, no GPU; 2 workers" in text and "at most" in text
    assert "note" not in text and "\x1b" not in text
    table = as_table(tiny_plan)
    assert table["stages"] == {"stage1": {"steps": 4, "workers": 2}, "stage2": {"steps": 4, "workers": 2}}
    parts = table["variants"]["ours"]["seconds"]
    assert sum(parts.values()) + tiny_plan.search + tiny_plan.rest == pytest.approx(table["seconds"])
    assert table["has_room"] and json.dumps(table)


def test_what_does_not_fit_is_said(tiny_plan):
    needed = size(tiny_plan.memory)
    small = replace(tiny_plan, machine=Machine(2, 10**7))
    assert f"needs {needed}, the memory is 10 MB: lower batch_clips" in describe(small, "")
    assert not small.has_room
    gpu = replace(tiny_plan, machine=Machine(2, 10**12, 1, "Tiny GPU", 10**7))
    assert "the memory of a GPU is 10 MB" in describe(gpu, "") and "no GPU" not in describe(gpu, "")


def test_days_without_a_gpu_are_called_so(tiny_plan):
    long = replace(tiny_plan, rest=3 * 86400.0)
    assert "about 3.0 days" in describe(long, "")
    needed = size(tiny_plan.variants["ours"].on_gpu)
    remark = f"there is no GPU here, and these are the times of these CPUs; one GPU would need {needed}"
    assert remark in describe(long, "") and remark not in describe(tiny_plan, "")


def test_without_a_folder_what_depends_on_it_is_unknown(tiny_config):
    source = SourceConfig(name="later", layout="davis")
    config = tiny_config.model_copy(update={"data": DataConfig(name="later", sources=(source,))})
    made = make_plan(tiny_params(config), TWO_CORES)
    text = describe(made, "")
    assert "later, davis: no folder yet; videos unknown until --data is given" in text
    assert as_table(made)["videos"] is None and made.seconds > 0


def test_a_missing_backbone_file_is_said(tiny_plan):
    config = tiny_plan.params.base
    backbone = config.model.backbone.model_copy(update={"weights": "no/such.pth"})
    config = config.model_copy(update={"model": config.model.model_copy(update={"backbone": backbone})})
    text = describe(replace(tiny_plan, params=Params(config, {"ours": config})), "")
    assert "ours needs no/such.pth, which is not there yet: docs/backbones.md" in text


def test_a_faulty_search_is_found_before_anything_is_measured(tiny_config):
    tune = tiny_config.tune.model_copy(update={"trial": {"train": {"stage3": {}}}})
    config = tiny_config.model_copy(update={"tune": tune})
    with pytest.raises(ValueError, match=r"tune\.trial: train\.stage3: unknown key"):
        make_plan(Params(config, {"ours": config}), TWO_CORES)


def test_more_epochs_take_proportionally_longer(tiny_config, free_reading):
    once = costs(changed(tiny_config, epochs=1)).plan({"stage1": 1, "stage2": 1}).stages["stage1"].training
    thrice = costs(changed(tiny_config, epochs=3)).plan({"stage1": 1, "stage2": 1}).stages["stage1"].training
    assert thrice == pytest.approx(3 * once)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0.4 s"), (89, "89 s"), (90, "1.5 min"), (3600, "60 min"), (7200, "2.0 h"), (86400 * 12, "12 days")],
)
def test_durations_are_short(seconds, text):
    assert duration(seconds) == text


def test_help_has_an_example():
    done = subprocess.run([sys.executable, "-m", "ssvos.cli", "plan", "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "Example: ssvos plan --preset davis" in done.stdout


@pytest.fixture
def call(monkeypatch, tmp_path, capsys):
    """Call the command in an empty folder with the project's presets: exit status, output, errors."""
    (tmp_path / "conf").symlink_to(PROJECT / "conf")
    monkeypatch.chdir(tmp_path)

    def run(*arguments) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ssvos", "plan", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, *capsys.readouterr()

    return run


def test_the_command_writes_what_it_planned(call, tiny_data, tmp_path):
    root = tiny_data.roots["embedded"]
    sizes = [f"train.{stage}.{side}" for stage in ("stage1", "stage2") for side in ("height=48", "width=64")]
    settings = [part for given in sizes for part in ("--set", given)]
    code, out, err = call("--data", f"own={root}", "--preset", "cpu-small", *settings, "--json", "p.json", "--write")
    assert (code, err) == (0, "") and "params.yaml: written" in out and "2 videos of train" in out
    written = read_yaml(tmp_path / "params.yaml")
    assert written["data"]["name"] == "own" and written["data"]["sources"][0]["root"] == str(root)
    assert written["train"]["stage1"]["height"] == 48
    assert json.loads((tmp_path / "p.json").read_text())["videos"]["own"]["judged"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--preset", "davs"), "did you mean davis?"),
        (("--set", "trian.seed=1"), "trian: unknown key, did you mean train?"),
        (("--data", "EMBEDDED", "--val", "tset", "--write"), "tset.txt: no such list; choose one of train, val"),
        (("--preset", "davis", "--write"), "source davis has no folder yet; give --data DIR"),
        (("--workers", "9999", "--preset", "demo", "--write"), "9999 requested"),
    ],
)
def test_a_mistake_is_one_line_and_changes_nothing(call, tiny_data, tmp_path, arguments, message):
    (tmp_path / "params.yaml").write_text((PROJECT / "params.yaml").read_text())
    root = str(tiny_data.roots["embedded"])
    code, out, err = call(*(root if argument == "EMBEDDED" else argument for argument in arguments))
    assert (code, out) == (1, "") and err.count("\n") == 1 and message in err
    assert (tmp_path / "params.yaml").read_text() == (PROJECT / "params.yaml").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["conf", "params.yaml"]
