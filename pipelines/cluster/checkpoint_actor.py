"""From the workers to the driver while a training runs: epochs' rows and the state to go on from.

The workers need no storage that all nodes see: the state of rank 0 passes through an actor on the driver's node, and
the driver keeps it in the project's folder. A restarted worker asks the actor, a restarted stage reads the file.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_POLL = 1.0  # seconds


class CheckpointActor:
    """The actor: rows that the driver has not taken yet, and the latest state as bytes."""

    def __init__(self, state: bytes | None):
        self.rows: list[tuple[dict[str, float], str]] = []
        self.state = state
        self.is_new = False
        self.fault = ""

    def put(self, metrics: dict[str, float], line: str, state: bytes | None) -> None:
        """An epoch's row, line and state; a state within an epoch, without a line; or a warning, a line alone."""
        self._go_on()
        if line:
            self.rows.append((metrics, line))
        if state is not None:
            self.state, self.is_new = state, True

    def take(self) -> tuple[list[tuple[dict[str, float], str]], bytes | None]:
        """Rows since the last call, and the state if it has changed since."""
        rows, state = self.rows, self.state if self.is_new else None
        self.rows, self.is_new = [], False
        return rows, state

    def latest(self) -> bytes | None:
        self._go_on()
        return self.state

    def stop(self, fault: str) -> None:
        """The driver cannot keep what it is given: training on would be for nothing."""
        self.fault = fault

    def _go_on(self) -> None:
        if self.fault:
            raise OSError(self.fault)


def start_checkpoint_actor(state: bytes | None):
    """A keeper on the driver's own node, beside all workers' resources."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(CheckpointActor).options(num_cpus=0, scheduling_strategy=here).remote(state)


@contextmanager
def following(
    keeper, write: Callable[[bytes], None], on_row: Callable[[dict[str, float], str], None]
) -> Iterator[None]:
    """While the block runs, and once more at its end: hand each epoch's row on, and the latest state to `write`.

    Raises what `write` or `on_row` raised; the workers are stopped by it.
    """
    import ray

    done, faults = threading.Event(), []

    def look() -> None:
        rows, state = ray.get(keeper.take.remote())
        if state is not None:
            write(state)
        for metrics, line in rows:
            on_row(metrics, line)

    def follow() -> None:
        while not done.wait(_POLL):
            try:
                look()
            except Exception as error:
                faults.append(error)
                keeper.stop.remote(str(error))
                return

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(timeout=60)
        if faults:
            raise faults[0]
        look()
