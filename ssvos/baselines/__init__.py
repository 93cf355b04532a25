"""What segments without training: the marks that a trained network has to pass."""
