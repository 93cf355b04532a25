"""A training's two latest states, in a folder or in an object store."""

from pipelines.cluster.storage import put
from ssvos.training.train_state import SavedState


class CheckpointStore(SavedState):
    """As `SavedState`, whose path may be a Place too."""

    def write(self, state: bytes) -> None:
        """At every moment at least one whole state is there."""
        if self.path.is_file():
            self.path.replace(self.previous)
        put(self.path, state)
