"""Hyperspectral super-resolution with cross-spectral domain adaptation."""

__version__ = "0.1.0"
