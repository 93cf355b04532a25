"""Estimates of the time, memory and disk space of a run, and the parameters of presets."""
