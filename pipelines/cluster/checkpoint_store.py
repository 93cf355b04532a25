"""A training's two latest states, in a folder or in an object store."""

from pipelines.cluster.storage import put
from ssvos.training.train_state import SavedState


class CheckpointStore(SavedState):
    """Like `SavedState`, but `path` may also be a StorageLocation."""

    def write(self, state: bytes) -> None:
        """Save a state; at every moment at least one complete state exists."""
        if self.path.is_file():
            self.path.replace(self.previous)
        put(self.path, state)
