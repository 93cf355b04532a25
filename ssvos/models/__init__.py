"""The network: backbone, scribble attention, mask propagation, appearance, fusion and up-sampling (III-A to III-C)."""
