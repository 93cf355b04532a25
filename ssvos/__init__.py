"""Learn to segment objects in video from scribbles instead of dense masks."""

__version__ = "0.1.0"
