"""Inference: the masks of a video from a checkpoint and a scribble."""
