"""Evaluation of mask folders: scoring, checking and packing for a benchmark's server, and splits of a data set."""
