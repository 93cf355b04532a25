"""The files of deploy/ are valid for the programs that read them. Broken files are rejected. MLflow's server starts."""

import copy
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from cluster_head import free_port
from deploy_models import Compose, ConfigMap, RayCluster, RayJob, VolumeClaim
from jsonschema import ValidationError as SchemaError
from jsonschema import validate
from pydantic import ValidationError
from ruamel.yaml import YAML
from sandbox import PROJECT

DEPLOY = PROJECT / "deploy"
GONE = object()
LOCKS = ("requirements.lock", "requirements-torch.lock", "deploy/requirements.lock")


def read_all(name: str) -> list[dict]:
    return list(YAML(typ="safe").load_all((DEPLOY / name).read_text()))


def read(name: str) -> dict:
    return read_all(name)[0]


def broken(document: dict, path: str, value: object) -> dict:
    """Return the document with another value at a dotted path.

    GONE removes the last key. If the last key is `old>new`, GONE renames it.
    """
    document = copy.deepcopy(document)
    *parents, last = path.split(".")
    parent = document
    for key in parents:
        parent = parent[int(key) if key.isdigit() else key]
    old, _, new = last.partition(">")
    old = int(old) if old.isdigit() else old
    parent[old]  # raises for a path that does not exist
    if value is not GONE:
        parent[old] = value
    elif new:
        parent[new] = parent.pop(old)
    else:
        del parent[old]
    return document


def locked(package: str) -> str:
    text = "".join((PROJECT / name).read_text() for name in LOCKS)
    return re.search(rf"^{package}==(\S+)", text, re.MULTILINE)[1]


# --- Kubernetes ---

HEAD = "headGroupSpec.template.spec.containers.0"
CLUSTER_FAULTS = [
    ("workerGroupSpecs>workerGroupSpec", GONE),
    ("headGroupSpec.rayStartParams>rayStartParameters", GONE),
    ("headGroupSpec.rayStartParams.num-cpus", 0),
    (f"{HEAD}.image", GONE),
    (f"{HEAD}.image", "ssvos"),
    (f"{HEAD}.image", "ssvos:latest"),
    (f"{HEAD}.ports.0.containerPort", "6379"),
    (f"{HEAD}.ports.0.containerPort", 70000),
    (f"{HEAD}.env.0.value", 6379),
    (f"{HEAD}.volumeMounts.0.name", "datas"),
    (f"{HEAD}.resources.limits.memory", 16),
    ("headGroupSpec.template.spec.securityContext.runAsUser", 0),
    ("workerGroupSpecs.0.replicas", "2"),
    ("workerGroupSpecs.1.replicas", 9),
    ("workerGroupSpecs.1.groupName", GONE),
    ("authOptions.mode", "none"),
    ("rayVersion", 2.60),
]


def test_ray_cluster_is_valid_for_kuberay():
    RayCluster.model_validate(read("raycluster.yaml"))


@pytest.mark.parametrize(("path", "value"), CLUSTER_FAULTS)
def test_a_broken_ray_cluster_is_rejected(path, value):
    with pytest.raises(ValidationError):
        RayCluster.model_validate(broken(read("raycluster.yaml"), f"spec.{path}", value))


def test_ray_job_is_valid_for_kuberay_and_has_the_same_cluster():
    job = RayJob.model_validate(read("rayjob.yaml"))
    assert job.spec.rayClusterSpec == RayCluster.model_validate(read("raycluster.yaml")).spec


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("apiVersion", "ray.io/v1alpha1"),
        ("kind", "RayCluster"),
        ("spec.entrypoint", GONE),
        ("spec.entrypoint>entryPoint", GONE),
        ("spec.shutdownAfterJobFinishes", "true"),
        ("spec.submissionMode", "Job"),
        ("spec.ttlSecondsAfterFinished", "600"),
        (f"spec.rayClusterSpec.{HEAD}.image", GONE),
    ],
)
def test_a_broken_ray_job_is_rejected(path, value):
    with pytest.raises(ValidationError):
        RayJob.model_validate(broken(read("rayjob.yaml"), path, value))


def test_pods_name_the_shared_volume_and_the_tracking_address():
    config, claim = read_all("shared.yaml")
    config, claim = ConfigMap.model_validate(config), VolumeClaim.model_validate(claim)
    assert set(config.data) == {"MLFLOW_TRACKING_URI"}
    for pod in pods():
        (container,) = pod.containers
        (data,) = [volume for volume in pod.volumes if volume.persistentVolumeClaim]
        assert data.persistentVolumeClaim.claimName == claim.metadata.name
        assert {mount.mountPath for mount in container.volumeMounts if mount.name == data.name} == {"/data"}
        assert config.metadata.name in [source.configMapRef.name for source in container.envFrom if source.configMapRef]


@pytest.mark.parametrize(
    ("document", "model", "path", "value"),
    [
        (0, ConfigMap, "data.MLFLOW_TRACKING_URI", 5000),
        (0, ConfigMap, "data>datas", GONE),
        (1, VolumeClaim, "spec.accessModes.0", "ReadWriteOnce"),
        (1, VolumeClaim, "spec.resources.requests.storage", "much"),
    ],
)
def test_a_broken_shared_file_is_rejected(document, model, path, value):
    with pytest.raises(ValidationError):
        model.model_validate(broken(read_all("shared.yaml")[document], path, value))


def pods() -> list:
    spec = RayCluster.model_validate(read("raycluster.yaml")).spec
    return [group.template.spec for group in (spec.headGroupSpec, *spec.workerGroupSpecs)]


def test_the_cluster_has_cpu_workers_gpu_workers_and_a_head_without_cpus():
    spec = RayCluster.model_validate(read("raycluster.yaml")).spec
    gpus = [group.template.spec.containers[0].resources.limits.get("nvidia.com/gpu") for group in spec.workerGroupSpecs]
    assert sorted(gpus, key=str) == ["1", None]
    assert spec.headGroupSpec.rayStartParams["num-cpus"] == "0"


# --- versions ---


def test_images_manifests_and_lock_have_the_same_ray_version():
    version = locked("ray")
    assert RayCluster.model_validate(read("raycluster.yaml")).spec.rayVersion == version
    texts = {path.name: path.read_text() for path in DEPLOY.rglob("*") if path.is_file()}
    tags = {name: set(re.findall(r"\bssvos:([\w.-]+)", text)) for name, text in texts.items()}
    used = set().union(*tags.values())
    assert used == {f"ray-{version}-cpu", f"ray-{version}-cuda"}
    assert tags["Dockerfile"] == used


def test_extra_packages_of_nodes_are_not_locked_twice():
    names = [set(re.findall(r"^([\w.-]+)==", (PROJECT / name).read_text(), re.MULTILINE)) for name in LOCKS]
    assert not names[0] & names[2]
    assert {"psycopg2-binary", "opencensus"} <= names[2] and "boto3" in names[0]


# --- Ray's cluster launcher ---


def check_launcher(config: dict) -> dict:
    """Apply Ray's schema, then the checks that `ray up` runs before it connects to a machine."""
    from ray import autoscaler
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate(config, json.loads((Path(autoscaler.__file__).parent / "ray-schema.json").read_text()))
    prepared = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    return prepared


def cloud_variant() -> dict:
    """Return the file with its commented-out cloud keys instead of the local keys."""
    text = (DEPLOY / "ray-cluster.yaml").read_text().partition("# --- in a cloud")[2].partition("\n")[2]
    return read("ray-cluster.yaml") | YAML(typ="safe").load(re.sub(r"^# ", "", text, flags=re.MULTILINE))


def test_the_launcher_file_is_valid_for_ray_and_copies_the_locks():
    prepared = check_launcher(read("ray-cluster.yaml"))
    assert prepared["available_node_types"]["local.cluster.node"]["max_workers"] == 2
    copied = [source for source in read("ray-cluster.yaml")["file_mounts"].values() if not source.startswith("~")]
    assert sorted(copied) == sorted(LOCKS)


def test_the_launchers_cloud_keys_are_valid_for_ray():
    prepared = check_launcher(cloud_variant())
    assert set(prepared["available_node_types"]) == {"head", "cpu", "gpu"}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("file_mounts>file_mount", GONE),
        ("cluster_name", GONE),
        ("cluster_name", 7),
        ("max_workers", "two"),
        ("provider.head_ip", 10),
        ("provider.type", GONE),
        ("auth.ssh_user>sshuser", GONE),
        ("setup_commands.0", 1),
    ],
)
def test_a_broken_launcher_file_is_rejected_by_ray(path, value):
    with pytest.raises(SchemaError):
        check_launcher(broken(read("ray-cluster.yaml"), path, value))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("docker.head_image", GONE),
        ("docker.head_image>headimage", GONE),
        ("head_node_type", "heads"),
        ("available_node_types.gpu.min_workers", 40),
        ("available_node_types.gpu.node_config", GONE),
    ],
)
def test_broken_cloud_keys_are_rejected_by_ray(path, value):
    with pytest.raises((SchemaError, ValueError, AssertionError)):
        check_launcher(broken(cloud_variant(), path, value))


# --- Dockerfile ---


def instructions(text: str) -> list[tuple[str, str]]:
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ").splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in joined)]


def check_dockerfile(text: str) -> None:
    """Raise ValueError if the file does not build the image that the manifests expect."""
    steps = instructions(text)
    known = {"ARG", "FROM", "RUN", "COPY", "ENV", "USER", "WORKDIR"}
    if unknown := {word for word, _ in steps} - known:
        raise ValueError(f"unknown instructions {unknown}")
    bases = [rest for word, rest in steps if word == "FROM"]
    arguments = dict(rest.split("=", 1) for word, rest in steps if word == "ARG" and "=" in rest)
    if bases != ["${BASE}"] or not re.fullmatch(r"[a-z/]+:[\w.-]*\d[\w.-]*", arguments.get("BASE", "")):
        raise ValueError(f"starts from {bases}, by default {arguments.get('BASE')}")
    copied = [source for word, rest in steps if word == "COPY" for source in rest.split()[:-1]]
    if missing := [source for source in copied if not (PROJECT / source).is_file()]:
        raise ValueError(f"copies missing files {missing}")
    if sorted(copied) != sorted(LOCKS):
        raise ValueError(f"copies {copied}, the locks are {LOCKS}")
    installs = re.findall(r"pip install([^&]*)", " ".join(rest for word, rest in steps if word == "RUN"))
    for options in installs:
        words = [word for word in options.split() if word != "--no-cache-dir" and word != "--require-hashes"]
        if words[::2] != ["-r"] * (len(words) // 2):
            raise ValueError(f"installs packages without a lock: {options}")
    users = [rest for word, rest in steps if word == "USER"]
    if not users or re.match(r"(root|0)\b", users[-1]):
        raise ValueError(f"runs as {users}")


def test_the_dockerfile_installs_the_locks_on_a_chosen_base_and_does_not_run_as_root():
    text = (DEPLOY / "Dockerfile").read_text()
    check_dockerfile(text)
    user = int(re.search(r"^USER (\d+)", text, re.MULTILINE)[1])
    assert {pod.securityContext.runAsUser for pod in pods()} == {user}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("FROM ${BASE}", "FROM ubuntu:noble-20251013"),
        ("ARG BASE=ubuntu:noble-20251013", "ARG BASE=ubuntu:latest"),
        ("ARG BASE=ubuntu:noble-20251013", "ARG BASES=ubuntu:noble-20251013"),
        ("COPY requirements-torch.lock requirements.lock", "COPY requirements-torch.lock requirement.lock"),
        ("COPY deploy/requirements.lock /locks/nodes.lock", ""),
        ("USER 10001:10001", ""),
        ("USER 10001:10001", "USER root"),
        ("USER 10001:10001", "USER 0:0"),
        ("-r /locks/requirements-torch.lock", "torch"),
        ("WORKDIR", "WORKDIRS"),
    ],
)
def test_a_broken_dockerfile_is_rejected(old, new):
    text = (DEPLOY / "Dockerfile").read_text()
    assert old in text
    with pytest.raises(ValueError):
        check_dockerfile(text.replace(old, new))


# --- MLflow ---


def test_the_compose_file_is_valid_and_takes_secrets_from_the_environment():
    compose = Compose.model_validate(read("mlflow/compose.yaml"))
    assert [name for name, service in compose.services.items() if service.ports] == ["mlflow"]
    required = re.findall(r"\$\{(\w+):\?", (DEPLOY / "mlflow/compose.yaml").read_text())
    assert set(required) == {"POSTGRES_PASSWORD", "S3_ACCESS_KEY", "S3_SECRET_KEY"}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("services.mlflow.image", GONE),
        ("services.postgres.image", "postgres"),
        ("services.postgres.image", "postgres:latest"),
        ("services.mlflow.ports>port", GONE),
        ("services.mlflow.ports.0", 5000),
        ("services.mlflow.ports.0", "5000:5000"),
        ("services.mlflow.ports.0", "0.0.0.0:5000:5000"),
        ("services.mlflow.command.5", 5000),
        ("services.postgres.environment.POSTGRES_PASSWORD", "mlflow"),
        ("services.postgres.environment.POSTGRES_PASSWORD", "${POSTGRES_PASSWORD:-mlflow}"),
        ("services.mlflow.depends_on.postgres>postgresql", GONE),
        ("services.mlflow.depends_on.postgres.condition", "service_ready"),
        ("services.store.volumes.0", "artefacts:/data"),
        ("volumes>volume", GONE),
    ],
)
def test_a_broken_compose_file_is_rejected(path, value):
    with pytest.raises(ValidationError):
        Compose.model_validate(broken(read("mlflow/compose.yaml"), path, value))


def get(url: str, host: str = "") -> tuple[int, str]:
    request = urllib.request.Request(url, headers={"Host": host} if host else {})
    try:
        with urllib.request.urlopen(request, timeout=5) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, ""


def wait_for(url: str, process: subprocess.Popen, seconds: float) -> str:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert process.poll() is None, "the server ended"
        try:
            return get(url)[1]
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"{url}: no answer")


@pytest.mark.timeout(90)
def test_the_compose_files_mlflow_server_starts_and_answers_only_its_own_hosts(tmp_path: Path):
    """Run the file's command and settings on loopback. SQLite replaces PostgreSQL, and a folder replaces S3."""
    service = Compose.model_validate(read("mlflow/compose.yaml")).services["mlflow"]
    port, command = free_port(), list(service.command)
    command[command.index("--host") + 1] = "127.0.0.1"
    command[command.index("--port") + 1] = str(port)
    command[command.index("--workers") + 1] = "1"
    # ${NAME:-default} becomes the default; only PostgreSQL and S3 use the required variables
    settings = {name: re.sub(r"^\$\{\w+:[-?](.*)\}$", r"\1", value) for name, value in service.environment.items()}
    settings |= {
        "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{tmp_path / 'mlflow.db'}",
        "MLFLOW_ARTIFACTS_DESTINATION": str(tmp_path / "artifacts"),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
    }
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(
            command, env=os.environ | settings, stdout=log, stderr=log, cwd=tmp_path, start_new_session=True
        )
    try:
        assert wait_for(f"http://127.0.0.1:{port}/health", server, 80) == "OK"
        search = f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/search?max_results=1"
        assert get(search)[0] == 200
        assert get(search, host="elsewhere.example")[0] == 403
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait(timeout=10)
