"""The workflow: one file per DVC stage, over the method in `ssvos`."""
