"""Rich clips of the embedded data set: scenes, articulated objects, camera motion, and imaging degradations."""
