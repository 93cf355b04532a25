"""Stages of the studies: the paper's tables with several seeds."""
