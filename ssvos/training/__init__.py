"""The training loop, its state, and its runs with PyTorch alone."""
