"""From tiles to a run folder."""
