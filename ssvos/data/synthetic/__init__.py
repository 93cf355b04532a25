"""Rendered clips with true masks."""
