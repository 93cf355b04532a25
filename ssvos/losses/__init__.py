"""Training losses (III-D): partial cross-entropy, dense-CRF energy, scribble-supervised loss, and their sum."""
