"""Radiance scenes in ENVI files, their bands, coarser twins of them."""
