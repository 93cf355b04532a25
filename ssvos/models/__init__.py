"""The network: backbone, attention, mask propagation, appearance model, fusion and up-sampling (III-A to III-C)."""
