"""The parameter search with Ray Tune."""
