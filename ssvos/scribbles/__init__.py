"""Scribbles: simulation from masks (III-E), import of scribbles drawn by people, and the Parquet scribble store."""
