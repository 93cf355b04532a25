"""Videos on disk, clips for training, and the embedded data set."""
