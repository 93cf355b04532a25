"""The pipeline: one file per DVC stage, on top of the method in `ssvos`."""
