"""Videos on disk, training clips, and the embedded data set."""
