"""Plans: costs computed by hand, profiles against direct counts, and the output of the command."""

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
from ssvos.planning.dummy_data import dummy_frames, dummy_scribble
from ssvos.planning.plan import RunPlan, make_plan, num_steps
from ssvos.planning.plan_text import as_table, describe, duration, size
from ssvos.planning.presets import compose
from ssvos.planning.profile import Line, NetworkProfile
from ssvos.planning.profiler import profile_network
from ssvos.planning.video_counts import count_sources

PROJECT = Path(__file__).parents[2]
TWO_CORES = Machine(cpus=2, memory=8 * 10**9)
# a frame takes 10 ms and 1 us per pixel, a regularized one 2 ms and 0.1 us more
BY_HAND = NetworkProfile(
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
def reading_of_1_ms(monkeypatch):
    monkeypatch.setattr(plan, "reading_seconds", lambda *_: 0.001)


@pytest.fixture(scope="module")
def tiny_plan(tiny_config) -> RunPlan:
    return make_plan(tiny_params(tiny_config), TWO_CORES)


def tiny_params(config: Config) -> Params:
    tune = config.tune.model_copy(update={"trials": 3})
    config = config.model_copy(update={"tune": tune})
    return Params(config, {"ours": config})


def costs(config: Config, sources=None) -> plan._VariantCosts:
    return plan._VariantCosts(config, BY_HAND, TWO_CORES, sources)


def on_disk(data: TinyData, **more) -> Config:
    source = SourceConfig(name="own", layout="davis", root=str(data.roots["embedded"]))
    return data.config.model_copy(update={"data": DataConfig(name="own", sources=(source,), **more)})


def test_an_incomplete_batch_is_not_a_step():
    assert num_steps(STAGE) == 2
    demo = params_from(compose(PROJECT / "conf", "demo"), "demo").base.train
    assert (num_steps(demo.stage1), num_steps(demo.stage2)) == (63, 45)


def test_training_time_is_that_of_frames_reading_and_update_in_all_steps(tiny_config, reading_of_1_ms):
    """2 steps x 3 epochs with 2 clips per worker: 5 frames of 0.01 + 0.02, one regularized frame of 0.002 + 0.002, the
    update of 0.006, and 2 x 5 frames to read."""
    assert costs(tiny_config).training(STAGE, workers=2) == pytest.approx(6 * (0.15 + 0.004 + 0.006 + 0.01))
    one_worker = 6 * (5 * (0.01 + 0.04) + 0.006 + 0.006 + 20 * 0.001)
    assert costs(tiny_config).training(STAGE, workers=1) == pytest.approx(one_worker)
    all_frames = STAGE.model_copy(update={"regularized_frames": 0})
    assert costs(tiny_config).training(all_frames, 2) == pytest.approx(6 * (0.15 + 5 * 0.004 + 0.006 + 0.01))


def test_scoring_time_is_that_of_the_held_out_frames_after_every_epoch(tiny_config, tiny_data, reading_of_1_ms):
    (counts,) = count_sources(on_disk(tiny_data))
    three = replace(counts, holdout=(6, 6, 30))
    limited = STAGE.model_copy(update={"holdout_frames": 6})
    # two workers, one of them with two videos of six frames
    assert costs(tiny_config, [three]).scoring(limited, 2) == pytest.approx(3 * 12 * (0.005 + 0.01 + 0.001))
    assert costs(tiny_config, [three]).scoring(STAGE, 1) == pytest.approx(3 * 42 * (0.005 + 0.01 + 0.001))
    # without masks: the forward pass of four clips of five frames per video
    maskless = replace(three, has_masks=False)
    assert costs(tiny_config, [maskless]).scoring(STAGE, 1) == pytest.approx(3 * 12 * 5 * (0.02 / 3 + 0.001))


def test_the_time_of_masks_includes_refinement_per_frame_and_training_per_video(
    tiny_config, tiny_data, reading_of_1_ms
):
    (counts,) = count_sources(on_disk(tiny_data))
    two = replace(counts, val=(10, 20), objects=2.0)
    predict = PredictConfig(height=100, width=100, test_time_training=TestTimeTrainingConfig(steps=4, clip_frames=3))
    config = tiny_config.model_copy(update={"predict": predict})
    frame, step = 0.005 + 0.01 + 0.003 + 0.02 + 0.001, 3 * (0.02 + 0.003) + 0.006
    assert costs(config, [two]).masks() == pytest.approx((30 * frame + 2 * 4 * 2 * step) / 2)


def test_memory_is_that_of_activations_and_state(tiny_config):
    """2 clips of 100x100: 5 frames x 200 bytes, one regularized x 300; weights, gradients, Adam, average, buckets."""
    averaged = STAGE.model_copy(update={"ema_decay": 0.9})
    tensors = 20000 * (5 * 200 + 300) + 4 * (2 * 1000 + 4 * 600)
    assert costs(tiny_config).memory(averaged, 2, on_gpu=False) == pytest.approx(1.2 * tensors + 7)
    one_worker = 40000 * (5 * 200 + 300) + 4 * (1000 + 3 * 600)
    assert costs(tiny_config).memory(STAGE, 1, on_gpu=True) == pytest.approx(1.1 * one_worker + 6e8)
    accumulated = STAGE.model_copy(update={"batch_clips": 4 * STAGE.batch_clips, "accumulate": 4})
    assert costs(tiny_config).memory(accumulated, 1, on_gpu=True) == pytest.approx(1.1 * one_worker + 6e8)


def test_video_counts_equal_those_of_prepare(tiny_data):
    prepared = sequences_by_split(read_index(tiny_data.index))
    for config in (tiny_data.config, on_disk(tiny_data, holdout_fraction=0.3)):
        (counts,) = count_sources(config)
        counted = {"train": len(counts.train), "holdout": len(counts.holdout), "val": len(counts.val)}
        assert counted == prepared == {"train": 2, "holdout": 1, "val": 1}
        assert set(counts.train + counts.holdout + counts.val) == {6} and counts.num_frames == 24
        assert counts.size == (48, 64) and counts.has_masks and counts.objects >= 1


def test_counting_finds_faulty_lists(tiny_data):
    with pytest.raises(ValueError, match=r"fit\.txt: no such list; choose one of train, val"):
        count_sources(on_disk(tiny_data, holdout_split="fit"))
    source = SourceConfig(name="embedded", layout="embedded", train="fit")
    config = tiny_data.config.model_copy(update={"data": DataConfig(name="a", sources=(source,))})
    with pytest.raises(ValueError, match="fit: the embedded data set has no such list"):
        count_sources(config)


def saved_bytes(network: Network, height: int, width: int) -> int:
    """Count the storages that a forward pass saves, without the weights."""
    frames = torch.from_numpy(dummy_frames((height, width))).permute(0, 3, 1, 2)[None].float() / 255
    scribble = torch.from_numpy(dummy_scribble((height, width)))[None]
    weights = {p.untyped_storage().data_ptr() for p in network.parameters()}
    sizes: dict[int, int] = {}

    def count(tensor):
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    config = Config(data=DataConfig(name="a", sources=(SourceConfig(name="a", layout="embedded"),))).loss
    plain = config.model_copy(update={"regularizer": "none"})
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        joint_loss(network(frames, scribble), frames, scribble[:, None].expand(-1, 2, -1, -1), plain, 0.5)
    return sum(size for address, size in sizes.items() if address not in weights)


@pytest.mark.parametrize(("kind", "power"), [("lattice", 1), ("exact", 2)])
@pytest.mark.parametrize("other", ["none", "scribble_supervised"])
def test_the_cost_of_a_regularized_frame_includes_the_proximal_loss(tiny_config, kind, power, other):
    def profiled(weight: float):
        proximal = tiny_config.loss.proximal.model_copy(update={"weight": weight, "filter": kind, "scale": 1.0})
        loss = tiny_config.loss.model_copy(update={"regularizer": other, "proximal": proximal})
        config = tiny_config.model_copy(update={"loss": loss})
        return profile_network(config, (48, 64), (48, 64), 1, torch.device("cpu"))

    without, with_loss = profiled(0.0), profiled(1.0)
    assert with_loss.power == power and with_loss.regularizer.at(3072.0**power) > 0
    # the filter is kept: nodes and weights of the lattice, or all pairs of pixels
    assert with_loss.step_bytes(3072, 2, 1) > without.step_bytes(3072, 2, 1) + (3e7 if kind == "exact" else 1e3)
    assert with_loss.step_bytes(3072, 2, 0) == pytest.approx(without.step_bytes(3072, 2, 0), rel=0.05)


def test_saved_bytes_extrapolate_to_other_sizes(tiny_config):
    profile = profile_network(tiny_config, (96, 128), (96, 128), 1, torch.device("cpu"))
    torch.manual_seed(0)
    network = Network(TINY_MODEL).train()
    for height, width in ((96, 256), (192, 256)):
        logits = 2 * 36 * height * width  # the part of the loss that is in no saved tensor
        counted = saved_bytes(network, height, width)
        assert profile.step_bytes(height * width, 2, 0) - logits == pytest.approx(counted, rel=0.15)
    assert profile.parameters == sum(p.numel() for p in network.parameters())


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs /proc of Linux")
def test_the_estimated_peak_memory_is_that_of_a_real_step():
    """One worker's clip of the demo's larger stage, in its own process."""
    params = params_from(compose(PROJECT / "conf", "demo"), "demo")
    program = """
import json, sys, torch
import ssvos.training.trainer
from ssvos.config import Config
from ssvos.losses.joint import joint_loss
from ssvos.models.network import Network
from ssvos.planning.dummy_data import dummy_frames, dummy_scribble
torch.set_num_threads(1)
config = Config.model_validate(json.loads(sys.stdin.read()))
stage, size = config.train.stage2, (config.train.stage2.height, config.train.stage2.width)
def kilobytes(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name))
network = Network(config.model)
optimizer = torch.optim.Adam(network.parameters())
def step(size):
    frames = torch.from_numpy(dummy_frames(size)).permute(0, 3, 1, 2)[None].float() / 255
    frames = frames.repeat(1, stage.clip_frames // 2, 1, 1, 1)
    scribble = torch.from_numpy(dummy_scribble(size))[None]
    target = scribble[:, None].expand(-1, stage.clip_frames, -1, -1)
    loss = joint_loss(network(frames, scribble), frames, target, config.loss, 0.0, torch.tensor([[1]]))
    loss.total.backward()
    optimizer.step()
    optimizer.zero_grad()
step((48, 80))
before = kilobytes("VmRSS")
step(size)
step(size)
print(before, kilobytes("VmHWM"))  # getrusage would include the peak of the parent process
"""
    stdin = json.dumps(params.base.model_dump(mode="json"))
    done = subprocess.run(
        [sys.executable, "-c", program], input=stdin, capture_output=True, text=True, check=True, cwd=PROJECT
    )
    before, after = (1024 * int(word) for word in done.stdout.split())
    config = params.variants["ours"]
    profile = replace(profile_network(config, (256, 448), (128, 224), 2, torch.device("cpu")), resting=before)
    estimate = plan._VariantCosts(config, profile, TWO_CORES, None).memory(config.train.stage2, 2, on_gpu=False)
    assert estimate == pytest.approx(after, rel=0.25)
    assert estimate - before == pytest.approx(after - before, rel=0.4)


def test_a_line_goes_through_its_points_and_does_not_fall():
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


def test_the_text_of_a_plan_describes_data_stages_and_machine(tiny_plan):
    text = describe(tiny_plan, "params.yaml, data set tiny")
    assert (
        "2 videos of train for training, 1 held out (of train) to choose the checkpoint, 1 of val for evaluation"
        in text
    )
    assert "24 frames of 48x64" in text
    assert (
        "2 epochs x 4 clips = 2 steps per epoch, 4 in total; clips of 3 frames x 48x64, batch 2, 1 per worker" in text
    )
    assert "2 CPU cores, 8 GB memory, no GPU; 2 workers" in text and "at most" in text
    assert "note" not in text and "\x1b" not in text
    table = as_table(tiny_plan)
    assert table["stages"] == {"stage1": {"steps": 4, "workers": 2}, "stage2": {"steps": 4, "workers": 2}}
    parts = table["variants"]["ours"]["seconds"]
    assert sum(parts.values()) + tiny_plan.search + tiny_plan.rest == pytest.approx(table["seconds"])
    assert table["has_room"] and json.dumps(table)


def test_the_plan_warns_of_too_little_memory(tiny_plan):
    needed = size(tiny_plan.memory)
    small = replace(tiny_plan, machine=Machine(2, 10**7))
    assert f"needs {needed} of memory, 10 MB available: lower batch_clips" in describe(small, "")
    assert not small.has_room
    gpu = replace(tiny_plan, machine=Machine(2, 10**12, 1, "Tiny GPU", 10**7))
    assert "of GPU memory, 10 MB available" in describe(gpu, "") and "no GPU" not in describe(gpu, "")


def test_the_plan_of_days_on_cpus_names_the_memory_of_a_gpu(tiny_plan):
    long = replace(tiny_plan, rest=3 * 86400.0)
    assert "about 3.0 days" in describe(long, "")
    needed = size(tiny_plan.variants["ours"].on_gpu)
    remark = f"this machine has no GPU, the times are those of its CPUs; a GPU would need {needed} of memory"
    assert remark in describe(long, "") and remark not in describe(tiny_plan, "")


def test_a_plan_without_a_folder_says_what_is_unknown(tiny_config):
    source = SourceConfig(name="later", layout="davis")
    config = tiny_config.model_copy(update={"data": DataConfig(name="later", sources=(source,))})
    run_plan = make_plan(tiny_params(config), TWO_CORES)
    text = describe(run_plan, "")
    assert "later, davis: no folder yet; videos unknown until --data is given" in text
    assert as_table(run_plan)["videos"] is None and run_plan.seconds > 0


def test_the_plan_names_a_missing_backbone_file(tiny_plan):
    config = tiny_plan.params.base
    backbone = config.model.backbone.model_copy(update={"weights": "no/such.pth"})
    config = config.model_copy(update={"model": config.model.model_copy(update={"backbone": backbone})})
    text = describe(replace(tiny_plan, params=Params(config, {"ours": config})), "")
    assert "ours needs no/such.pth, which does not exist; docs/backbones.md" in text


def test_a_faulty_search_is_refused_before_the_measurements(tiny_config):
    tune = tiny_config.tune.model_copy(update={"trial": {"train": {"stage3": {}}}})
    config = tiny_config.model_copy(update={"tune": tune})
    with pytest.raises(ValueError, match=r"tune\.trial: train\.stage3: unknown key"):
        make_plan(Params(config, {"ours": config}), TWO_CORES)


def test_training_time_is_proportional_to_the_number_of_epochs(tiny_config, reading_of_1_ms):
    once = costs(changed(tiny_config, epochs=1)).plan({"stage1": 1, "stage2": 1}).stages["stage1"].training
    thrice = costs(changed(tiny_config, epochs=3)).plan({"stage1": 1, "stage2": 1}).stages["stage1"].training
    assert thrice == pytest.approx(3 * once)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0.4 s"), (89, "89 s"), (90, "1.5 min"), (3600, "60 min"), (7200, "2.0 h"), (86400 * 12, "12 days")],
)
def test_durations_in_words(seconds, text):
    assert duration(seconds) == text


def test_the_help_has_an_example():
    done = subprocess.run([sys.executable, "-m", "ssvos.cli", "plan", "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "Example: ssvos plan --preset davis" in done.stdout


@pytest.fixture
def call(monkeypatch, tmp_path, capsys):
    """Runs the command in an empty folder with the project's presets; returns exit status, output and errors."""
    (tmp_path / "conf").symlink_to(PROJECT / "conf")
    monkeypatch.chdir(tmp_path)

    def run(*arguments) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ssvos", "plan", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_info:
            main()
        return exit_info.value.code, *capsys.readouterr()

    return run


def test_the_command_writes_the_planned_parameters(call, tiny_data, tmp_path):
    root = tiny_data.roots["embedded"]
    sizes = [f"train.{stage}.{side}" for stage in ("stage1", "stage2") for side in ("height=48", "width=64")]
    settings = [part for setting in sizes for part in ("--set", setting)]
    code, out, err = call("--data", f"own={root}", "--preset", "cpu-small", *settings, "--json", "p.json", "--write")
    assert (code, err) == (0, "") and "params.yaml: written" in out and "2 videos of train" in out
    written = read_yaml(tmp_path / "params.yaml")
    assert written["data"]["name"] == "own" and written["data"]["sources"][0]["root"] == str(root)
    assert written["train"]["stage1"]["height"] == 48
    assert json.loads((tmp_path / "p.json").read_text())["videos"]["own"]["val"] == 1


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
def test_bad_input_prints_one_line_and_changes_nothing(call, tiny_data, tmp_path, arguments, message):
    (tmp_path / "params.yaml").write_text((PROJECT / "params.yaml").read_text())
    root = str(tiny_data.roots["embedded"])
    code, out, err = call(*(root if argument == "EMBEDDED" else argument for argument in arguments))
    assert (code, out) == (1, "") and err.count("\n") == 1 and message in err
    assert (tmp_path / "params.yaml").read_text() == (PROJECT / "params.yaml").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["conf", "params.yaml"]
