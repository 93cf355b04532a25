"""Masks in folders: scored, checked and packed for a benchmark's server."""
