"""The training loop, its state, and training with PyTorch alone (`ssvos fit`)."""
