"""Stages of the studies: the paper's tables over several seeds."""
