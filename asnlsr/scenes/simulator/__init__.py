"""Simulated radiance scenes of parks and buildings."""
