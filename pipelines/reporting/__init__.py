"""Tables, charts and pages from the results on disk."""
