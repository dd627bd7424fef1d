"""A-SNLSR: cross-spectral domain adaptation for hyperspectral super-resolution, as a book."""

__version__ = "0.1.0"
