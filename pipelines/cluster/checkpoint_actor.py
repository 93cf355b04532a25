"""Sends epoch rows and the state to resume from, from the training workers to the driver.

The workers need no storage that every node can reach: rank 0 sends its state to an actor on the driver's node, and the
driver saves it in the project's folder. A restarted worker reads the actor, a restarted stage reads the saved file.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_POLL_SECONDS = 1.0


class CheckpointActor:
    """The actor: rows that the driver has not read yet, and the latest state as bytes."""

    def __init__(self, state: bytes | None):
        self.rows: list[tuple[dict[str, float], str]] = []
        self.state = state
        self.is_new = False
        self.fault = ""

    def put(self, metrics: dict[str, float], line: str, state: bytes | None) -> None:
        """Store the end of an epoch (row, line and state), a state within an epoch, or a warning (a line alone)."""
        self._raise_fault()
        if line:
            self.rows.append((metrics, line))
        if state is not None:
            self.state, self.is_new = state, True

    def take(self) -> tuple[list[tuple[dict[str, float], str]], bytes | None]:
        """Return the rows since the last call, and the state if it has changed since."""
        rows, state = self.rows, self.state if self.is_new else None
        self.rows, self.is_new = [], False
        return rows, state

    def latest(self) -> bytes | None:
        self._raise_fault()
        return self.state

    def stop(self, fault: str) -> None:
        """Make the workers' next call fail: the driver cannot save what they send."""
        self.fault = fault

    def _raise_fault(self) -> None:
        if self.fault:
            raise OSError(self.fault)


def start_checkpoint_actor(state: bytes | None):
    """Start the actor on the driver's node; it reserves no CPU, so the workers keep all of them."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    on_driver_node = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(CheckpointActor).options(num_cpus=0, scheduling_strategy=on_driver_node).remote(state)


@contextmanager
def poll_checkpoint_actor(
    checkpoint_actor, save_state: Callable[[bytes], None], on_row: Callable[[dict[str, float], str], None]
) -> Iterator[None]:
    """Read the actor every second while the block runs, and once more at its end.

    save_state: receives the latest state when it has changed.
    on_row: receives each epoch's metrics and line.

    Raises what `save_state` or `on_row` raised; the workers stop then.
    """
    import ray

    done, errors = threading.Event(), []

    def poll() -> None:
        rows, state = ray.get(checkpoint_actor.take.remote())
        if state is not None:
            save_state(state)
        for metrics, line in rows:
            on_row(metrics, line)

    def poll_until_done() -> None:
        while not done.wait(_POLL_SECONDS):
            try:
                poll()
            except Exception as error:
                errors.append(error)
                checkpoint_actor.stop.remote(str(error))
                return

    thread = threading.Thread(target=poll_until_done, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(timeout=60)
        if errors:
            raise errors[0]
        poll()
