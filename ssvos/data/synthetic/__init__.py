"""Rendered clips with exact masks."""
