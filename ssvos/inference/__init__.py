"""From a checkpoint and a scribble to the masks of a video."""
