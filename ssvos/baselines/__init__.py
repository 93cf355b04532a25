"""Segmentation without training: the baselines that a trained network is compared with."""
