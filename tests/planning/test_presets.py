"""Presets: each composes to valid parameters, DVC composes the same, and writing one loses nothing."""

from pathlib import Path

import pytest
import yaml

from ssvos.config import parse, read_yaml
from ssvos.config.variants import merge, params_from
from ssvos.planning.presets import Request, compose, names_in, requested_values, require_folders, write_params

PROJECT = Path(__file__).parents[2]
CONF = PROJECT / "conf"
PRESETS = (
    "demo",
    "cpu-from-scratch",
    "cpu-small",
    "davis",
    "from-scratch",
    "gpu-24gb",
    "gpu-80gb",
    "paper",
    "youtube_vos",
)


def requested(**request) -> dict:
    return requested_values(Request(**request), PROJECT / "params.yaml", "cpu-small")[0]


@pytest.fixture
def davis_folder(tmp_path) -> Path:
    """A folder with the file names of DAVIS layout."""
    root = tmp_path / "My clips"
    for part in ("JPEGImages/480p/a", "Annotations/480p/a", "ImageSets/2017"):
        (root / part).mkdir(parents=True)
    (root / "ImageSets/2017/train.txt").write_text("a\n")
    return root


def youtube_folder(tmp_path: Path) -> Path:
    root = tmp_path / "yt"
    (root / "train").mkdir(parents=True)
    (root / "train/meta.json").write_text("{}")
    return root


def test_the_names_of_the_presets():
    assert names_in(CONF, "preset") == list(PRESETS)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_valid_and_has_the_keys_of_dvc_yaml(preset):
    values = compose(CONF, preset)
    params = params_from(values, preset)
    stages = read_yaml(PROJECT / "dvc.yaml")["stages"]
    required = {key for stage in stages.values() for key in stage.get("params", ()) if "$" not in key}
    for key in required:
        table = values
        for part in key.split("."):
            assert part in table, f"{preset}: dvc.yaml depends on {key}"
            table = table[part]
    assert set(params.variants) == ({"pce", "ours"} if preset == "demo" else {"ours"})
    for stage in (params.base.train.stage1, params.base.train.stage2):
        assert stage.clips_per_epoch % stage.batch_clips == 0, "an epoch has complete batches"


@pytest.mark.parametrize("preset", PRESETS)
def test_the_values_of_a_preset_are_inside_the_search_ranges_and_trials_are_cheaper(preset):
    base = params_from(compose(CONF, preset), preset).base
    values = base.model_dump(mode="json")
    assert len(base.tune.space) == 6
    for key, search_range in base.tune.space.items():
        value = values
        for part in key.split("."):
            value = value[part]
        assert search_range.low < value < search_range.high, key
    trial = parse(type(base), merge(values, base.tune.trial), preset)
    for stage in ("stage1", "stage2"):
        short, full = getattr(trial.train, stage), getattr(base.train, stage)
        assert short.epochs * short.clips_per_epoch * base.tune.trials < 3 * full.epochs * full.clips_per_epoch


def test_params_yaml_is_the_demo_preset(tmp_path):
    write_params(compose(CONF, "demo"), tmp_path / "params.yaml", "preset demo")
    assert (tmp_path / "params.yaml").read_text() == (PROJECT / "params.yaml").read_text()


@pytest.mark.parametrize("preset", PRESETS)
def test_dvc_composes_the_same_values(preset, tmp_path):
    """The call of `dvc exp run -S preset=NAME` if DVC's hydra is enabled."""
    from dvc.utils.hydra import compose_and_dump

    out = tmp_path / "params.yaml"
    compose_and_dump(out, str(CONF), None, "config", str(PROJECT), [f"preset={preset}", "train.stage2.epochs=5"])
    own = compose(CONF, preset)
    own["train"]["stage2"]["epochs"] = 5
    assert read_yaml(out) == own
    write_params(own, tmp_path / "own.yaml", "x")
    assert yaml.safe_load((tmp_path / "own.yaml").read_text()) == read_yaml(out)


def test_the_paper_preset_has_the_values_of_section_iv_c():
    config = params_from(compose(CONF, "paper"), "paper").base
    first, second = config.train.stage1, config.train.stage2
    shared = ("epochs", "batch_clips", "clip_frames", "height", "width", "learning_rate", "lr_decay", "weight_decay")
    assert [getattr(first, key) for key in shared] == [80, 4, 8, 240, 480, 1e-4, 0.95, 1e-5]
    assert [getattr(second, key) for key in shared] == [100, 2, 14, 480, 854, 1e-5, 0.985, 1e-6]
    assert (first.auxiliary_weight, second.auxiliary_weight) == (1.0, 0.0)
    assert first.regularized_frames == second.regularized_frames == 0
    assert (first.clips_per_epoch, second.clips_per_epoch) == (4 * 650, 2 * 60)
    loss = config.loss
    assert (loss.regularizer, loss.normalization, loss.weight) == ("scribble_supervised", "none", 2e-15)
    assert (loss.sigma_xy, loss.sigma_rgb, loss.beta) == (100.0, 15.0, 0.1)
    assert (loss.unreliable_above, loss.unreliable_below, loss.balance) == (0.05, 0.3, "pixel")
    assert (config.model.backbone.name, config.model.backbone.frozen) == ("resnet101", True)
    assert (config.model.attention.kind, config.model.attention.scaled) == ("scribble", False)
    assert (config.model.state, config.model.appearance.update_rate) == ("coarse", 0.1)
    assert config.scribbles.width == 5
    augment = config.train.augment.model_dump()
    assert augment == {
        "flip": 0.5,
        "reverse": 0.0,
        "scale_min": 1.0,
        "scale_max": 1.0,
        "shear": 0.0,
        "blur": 0.0,
        "cutout": 0.0,
        "rotation": 0.0,
        "color": 0.0,
    }
    assert {s.name: (s.layout, s.train) for s in config.data.sources} == {
        "youtube": ("youtube-vos", "train"),
        "davis": ("davis", "train"),
    }


def test_the_preset_cpu_from_scratch_is_the_measured_recipe():
    """The row full_tight of the study of DAVIS-2016, trained with the longer recipe."""
    study = PROJECT / "studies/davis2016"
    recipe = merge(read_yaml(study / "recipe_cpu.yaml"), read_yaml(study / "longer.yaml"))
    recipe = merge(recipe, recipe["variants"]["full_tight"])
    preset = params_from(compose(CONF, "cpu-from-scratch"), "cpu-from-scratch").base
    measured = parse(type(preset), {key: value for key, value in recipe.items() if key != "variants"}, study)
    assert (preset.model, preset.loss, preset.train.augment) == (measured.model, measured.loss, measured.train.augment)
    for name in ("stage1", "stage2"):
        stage = getattr(preset.train, name).model_copy(update={"weights": {}})
        assert stage == getattr(measured.train, name)
    for key in ("height", "width", "rich", "uses"):
        assert getattr(preset.synthetic, key) == getattr(measured.synthetic, key), key


def test_a_setting_can_choose_the_loss_of_a_preset():
    loss = requested(preset="paper", settings=["loss=row"])["loss"]
    assert (loss["weight"], loss["normalization"]) == (0.9, "row")
    assert requested(preset="paper", settings=["loss.weight=2e-9"])["loss"]["weight"] == 2e-9


def test_settings_change_nested_tables_lists_and_variants():
    settings = ["train.stage1.epochs=3", "data.sources.0.weight=2.5", "variants.ours.loss.beta=1", "model.state=fine"]
    params = params_from(requested(preset="davis", settings=settings), "x")
    assert (params.base.train.stage1.epochs, params.base.data.sources[0].weight) == (3, 2.5)
    assert (params.base.loss.beta, params.variants["ours"].loss.beta) == (0.1, 1.0)
    assert params.base.model.state == "fine"


MISTAKES = [
    ({"preset": "davs"}, r"preset davs: no such preset, did you mean davis\? \(demo, .*youtube_vos\)"),
    ({"preset": "paper", "settings": ["loss=papr"]}, r"loss papr: no such loss, did you mean paper\?"),
    ({"settings": ["trian.seed=1"]}, r"trian: unknown key, did you mean train\?"),
    ({"preset": "davis", "settings": ["train.sed=1"]}, r"train\.sed: unknown key, did you mean seed\?"),
    ({"preset": "davis", "settings": ["train.seed.x=1"]}, r"train\.seed: input should be a valid integer"),
    ({"preset": "davis", "settings": ["data.sources.1.root=x"]}, "1 is not an index of a list of 1"),
    ({"preset": "davis", "settings": ["seed"]}, "--set seed: expected KEY=VALUE"),
    ({"preset": "davis", "settings": ["train.seed=[1"]}, "not readable as YAML"),
    ({"settings": ["loss=paper"]}, "add --preset"),
    ({"preset": "demo", "settings": ["preset=davis"]}, "choose it with --preset davis"),
    ({"folders": ["/no/such/folder"]}, "/no/such/folder: no such folder"),
    ({"preset": "paper", "train": "fit"}, "--train: there are 2 sources"),
    ({"preset": "davis", "layout": "davis"}, "--layout: needs a folder"),
]


@pytest.mark.parametrize(("request_", "message"), MISTAKES)
def test_bad_input_gives_a_one_line_error_with_a_remedy(request_, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        params_from(requested(**request_), "params")
    assert "\n" not in str(error.value) and "hydra" not in str(error.value).lower()


def test_a_broken_preset_file_gives_a_one_line_error(tmp_path):
    (tmp_path / "preset").mkdir()
    (tmp_path / "config.yaml").write_text("defaults:\n  - preset: demo\n")
    (tmp_path / "preset/demo.yaml").write_text("defaults:\n  - /nothing: here\n")
    with pytest.raises(ValueError, match="preset demo does not compose") as error:
        compose(tmp_path, "demo")
    assert "\n" not in str(error.value)
    with pytest.raises(FileNotFoundError, match="run this in the project's folder"):
        compose(tmp_path / "elsewhere", "demo")


def test_a_source_gets_name_layout_and_fingerprint_from_its_folder(davis_folder, monkeypatch):
    monkeypatch.chdir(davis_folder.parent)
    data = requested(folders=["My clips"], train="fit", holdout="held")["data"]
    (source,) = data["sources"]
    assert data["name"] == source["name"] == "My-clips"
    assert source | {"name": ""} == {
        "name": "",
        "layout": "davis",
        "root": str(davis_folder),
        "train": "fit",
        "val": "val",
    }
    assert data["holdout_split"] == "held" and data["holdout_fraction"] == 0.15
    (davis_folder / "JPEGImages/480p/a/00000.jpg").write_bytes(b"new")
    assert requested(folders=["My clips"])["data"]["fingerprint"] != data["fingerprint"]


def test_layouts_are_detected_and_unknown_ones_refused(davis_folder, tmp_path):
    (tmp_path / "own/frames").mkdir(parents=True)
    detected = {}
    for root in (davis_folder, youtube_folder(tmp_path), tmp_path / "own"):
        (source,) = requested(folders=[str(root)])["data"]["sources"]
        detected[root.name] = source["layout"], source["val"]
    assert detected == {"My clips": ("davis", "val"), "yt": ("youtube-vos", "valid"), "own": ("folder", "val")}
    with pytest.raises(ValueError, match=r"preset: unknown layout, .*train/meta\.json"):
        requested(folders=[str(CONF / "preset")])
    (source,) = requested(folders=[str(CONF / "preset")], layout="folder")["data"]["sources"]
    assert source["layout"] == "folder"


def test_folders_are_assigned_to_sources_by_name(davis_folder, tmp_path):
    youtube = youtube_folder(tmp_path)
    data = requested(preset="paper", folders=[f"davis={davis_folder}", f"youtube={youtube}"])["data"]
    assert data["name"] == "youtube_davis" and data["fingerprint"]
    roots = {s["name"]: (s["root"], s["val"], s["weight"]) for s in data["sources"]}
    assert roots == {"davis": (str(davis_folder), "val", 1.0), "youtube": (str(youtube), "valid", 10.0)}
    with pytest.raises(ValueError, match="2 sources; give --data youtube=DIR --data davis=DIR"):
        requested(preset="paper", folders=[str(davis_folder)])
    named = requested(folders=[f"mine={davis_folder}", str(youtube)])["data"]
    assert named["name"] == "mine-yt" and [s["name"] for s in named["sources"]] == ["mine", "yt"]
    with pytest.raises(ValueError, match="demo is the embedded data set's name"):
        requested(folders=[f"demo={davis_folder}"])


def test_a_folder_replaces_the_real_source_of_a_preset_but_not_the_rendered_one(davis_folder):
    values = requested(preset="from-scratch", folders=[f"mine={davis_folder}"], train="fit", holdout="held")
    real, rendered = values["data"]["sources"]
    assert (real["name"], real["root"], real["train"], real["val"]) == ("mine", str(davis_folder), "fit", "val")
    assert rendered == compose(CONF, "from-scratch")["data"]["sources"][1] and rendered["unlimited"]
    assert values["data"]["name"] == "mine" and values["data"]["holdout_split"] == "held"
    config = params_from(values, "x").base
    assert config.train.stage1.weights == {"mine": 0.0} and config.train.stage2.weights == {}


def test_demo_is_the_embedded_data_set_with_any_preset():
    assert requested(folders=["demo"]) == compose(CONF, "demo")
    values = requested(preset="gpu-24gb", folders=["demo"])
    assert values["data"] == compose(CONF, "demo")["data"] and values["synthetic"]["num_train"] == 56
    assert values["model"] == compose(CONF, "gpu-24gb")["model"]


def test_a_run_needs_the_folder_of_every_source(davis_folder):
    with pytest.raises(ValueError, match="preset davis: source davis has no folder yet; give --data DIR"):
        require_folders(params_from(requested(preset="davis"), "x").base, "preset davis")
    require_folders(params_from(requested(preset="davis", folders=[str(davis_folder)]), "x").base, "preset davis")
    require_folders(params_from(requested(preset="demo"), "x").base, "preset demo")


def test_a_file_changed_by_hand_is_kept_and_a_generated_one_is_replaced(tmp_path):
    path = tmp_path / "params.yaml"
    demo, other = compose(CONF, "demo"), compose(CONF, "cpu-small")
    path.write_text("# mine\na: 1\n")
    assert "the previous file is kept as" in write_params(demo, path, "preset demo")
    assert (tmp_path / "params.yaml.orig").read_text() == "# mine\na: 1\n"
    assert write_params(demo, path, "preset demo").endswith("has these parameters already")
    write_params(other, path, "preset cpu-small")
    assert read_yaml(path) == other
    path.write_text(path.read_text().replace("epochs: 7", "epochs: 8"))
    changed = path.read_text()
    write_params(demo, path, "preset demo")
    assert (tmp_path / "params.yaml.orig.2").read_text() == changed
    assert (tmp_path / "params.yaml.orig").read_text() == "# mine\na: 1\n"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["params.yaml", "params.yaml.orig", "params.yaml.orig.2"]


def test_a_failed_write_keeps_the_file(tmp_path, monkeypatch):
    path = tmp_path / "params.yaml"
    write_params({"a": 1}, path, "x")
    before = path.read_text()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_params({"a": 2}, path, "x")
    assert path.read_text() == before and list(tmp_path.iterdir()) == [path]


def test_written_values_are_the_same_in_YAML_1_1_and_1_2(tmp_path):
    values = {
        "small": [1e-5, 2e-15, 1e16, 0.1, 3.0],
        "text": ["no", "1e5", "2016", "010", "1:30", "null", "", "a: b", "é"],
    }
    write_params(values, tmp_path / "p.yaml", "x")
    text = (tmp_path / "p.yaml").read_text()
    assert yaml.safe_load(text) == read_yaml(tmp_path / "p.yaml") == values
    assert "1.0e-05" in text
