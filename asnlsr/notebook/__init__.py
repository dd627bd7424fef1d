"""What only chapters use: where results live, figures, the band browser."""
