"""Hyperspectral super-resolution with cross-spectral domain adaptation."""
