"""Strict models of the fields that deploy/ uses: they reject an unknown key and a wrong type.

Sources. Kubernetes: KubeRay's API reference (ray.io/v1) and the core/v1 reference. Compose: the Compose specification.
"""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator


def _pinned(image: str) -> str:
    tag = image.rpartition("/")[2].partition(":")[2]
    if not tag or tag == "latest":
        raise ValueError(f"image {image!r} has no tag of its own")
    return image


Name = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]
Image = Annotated[
    str, Field(pattern=r"^[a-z0-9][a-z0-9./_-]*(:\d+/[a-z0-9./_-]+)?(:[\w.-]+)?$"), AfterValidator(_pinned)
]
Quantity = Annotated[str, Field(pattern=r"^\d+(\.\d+)?(m|Ki|Mi|Gi|Ti)?$")]
Port = Annotated[int, Field(ge=1, le=65535)]
Path = Annotated[str, Field(pattern=r"^/")]
UserId = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Texts = dict[str, str]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Metadata(Strict):
    name: Name


class NamedPort(Strict):
    name: Name
    containerPort: Port


class EnvVar(Strict):
    name: str
    value: str


class Reference(Strict):
    name: Name
    optional: bool = False


class EnvFrom(Strict):
    configMapRef: Reference | None = None
    secretRef: Reference | None = None


class Resources(Strict):
    requests: dict[str, Quantity]
    limits: dict[str, Quantity]


class VolumeMount(Strict):
    name: Name
    mountPath: Path


class Container(Strict):
    name: Name
    image: Image
    ports: list[NamedPort] = []
    env: list[EnvVar] = []
    envFrom: list[EnvFrom] = []
    resources: Resources
    volumeMounts: list[VolumeMount]


class Claim(Strict):
    claimName: Name


class EmptyDir(Strict):
    medium: Literal["", "Memory"]
    sizeLimit: Quantity


class Volume(Strict):
    name: Name
    persistentVolumeClaim: Claim | None = None
    emptyDir: EmptyDir | None = None


class SecurityContext(Strict):
    runAsNonRoot: Literal[True]
    runAsUser: UserId
    runAsGroup: UserId
    fsGroup: UserId


class Toleration(Strict):
    key: str
    operator: Literal["Exists", "Equal"]
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"]


class PodSpec(Strict):
    securityContext: SecurityContext
    containers: Annotated[list[Container], Field(min_length=1)]
    volumes: list[Volume]
    tolerations: list[Toleration] = []

    @model_validator(mode="after")
    def _mounts_have_volumes(self) -> "PodSpec":
        known = {volume.name for volume in self.volumes}
        for container in self.containers:
            missing = {mount.name for mount in container.volumeMounts} - known
            if missing:
                raise ValueError(f"{container.name}: no volume {sorted(missing)}")
        return self


class PodTemplate(Strict):
    spec: PodSpec


class HeadGroup(Strict):
    serviceType: Literal["ClusterIP", "NodePort", "LoadBalancer"]
    rayStartParams: Texts
    template: PodTemplate


class WorkerGroup(Strict):
    groupName: Name
    replicas: Count
    minReplicas: Count
    maxReplicas: Count
    rayStartParams: Texts
    template: PodTemplate

    @model_validator(mode="after")
    def _ordered(self) -> "WorkerGroup":
        if not self.minReplicas <= self.replicas <= self.maxReplicas:
            raise ValueError(f"{self.groupName}: replicas {self.replicas} is not between minReplicas and maxReplicas")
        return self


class AuthOptions(Strict):
    mode: Literal["token", "disabled"]


class RayClusterSpec(Strict):
    rayVersion: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]
    authOptions: AuthOptions
    headGroupSpec: HeadGroup
    workerGroupSpecs: list[WorkerGroup]


class RayCluster(Strict):
    apiVersion: Literal["ray.io/v1"]
    kind: Literal["RayCluster"]
    metadata: Metadata
    spec: RayClusterSpec


class RayJobSpec(Strict):
    entrypoint: Annotated[str, Field(min_length=1)]
    submissionMode: Literal["K8sJobMode", "HTTPMode", "InteractiveMode"]
    backoffLimit: Count
    shutdownAfterJobFinishes: bool
    ttlSecondsAfterFinished: Count
    rayClusterSpec: RayClusterSpec


class RayJob(Strict):
    apiVersion: Literal["ray.io/v1"]
    kind: Literal["RayJob"]
    metadata: Metadata
    spec: RayJobSpec


class ConfigMap(Strict):
    apiVersion: Literal["v1"]
    kind: Literal["ConfigMap"]
    metadata: Metadata
    data: Texts


class ClaimResources(Strict):
    requests: dict[Literal["storage"], Quantity]


class ClaimSpec(Strict):
    accessModes: list[Literal["ReadWriteMany"]]  # pods on several nodes read and write the volume
    resources: ClaimResources


class VolumeClaim(Strict):
    apiVersion: Literal["v1"]
    kind: Literal["PersistentVolumeClaim"]
    metadata: Metadata
    spec: ClaimSpec


class HealthCheck(Strict):
    test: list[str]
    interval: str
    timeout: str
    retries: Count


class ConfigUse(Strict):
    source: Name
    target: Path


class Dependency(Strict):
    condition: Literal["service_started", "service_healthy", "service_completed_successfully"]


def _secret_from_environment(values: Texts) -> Texts:
    for name, value in values.items():
        if any(word in name for word in ("PASSWORD", "SECRET", "ACCESS_KEY")) and not value.startswith("${"):
            raise ValueError(f"{name}: a secret in the file")
        if any(word in value for word in ("PASSWORD:-", "KEY:-")):
            raise ValueError(f"{name}: a secret with a default")
    return values


class Service(Strict):
    image: Image
    restart: Literal["unless-stopped", "on-failure"]
    command: list[str] = []
    environment: Annotated[Texts, AfterValidator(_secret_from_environment)] = {}
    # published on loopback only
    ports: list[Annotated[str, Field(pattern=r"^127\.0\.0\.1:\d{2,5}:\d{2,5}$")]] = []
    volumes: list[Annotated[str, Field(pattern=r"^[a-z]+:/")]] = []
    configs: list[ConfigUse] = []
    healthcheck: HealthCheck | None = None
    depends_on: dict[str, Dependency] = {}


class Nothing(Strict):
    pass


class Config(Strict):
    content: str


class Compose(Strict):
    name: Name
    services: dict[Name, Service]
    volumes: dict[Name, Nothing]
    configs: dict[Name, Config]

    @model_validator(mode="after")
    def _names_are_known(self) -> "Compose":
        for name, service in self.services.items():
            used = {volume.partition(":")[0] for volume in service.volumes} - self.volumes.keys()
            used |= {config.source for config in service.configs} - self.configs.keys()
            used |= service.depends_on.keys() - self.services.keys()
            if used:
                raise ValueError(f"{name}: nothing is called {sorted(used)}")
        return self
