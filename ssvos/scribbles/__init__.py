"""Scribbles: simulated from masks (III-E) or drawn by people, and the Parquet store that training reads."""
