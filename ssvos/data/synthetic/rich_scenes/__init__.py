"""Rich clips of the embedded data set: scenes, articulated objects, a camera that follows them, faults of imaging."""
