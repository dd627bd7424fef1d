"""Plain formulations, as the papers write them: what the fast ones must equal and beat."""
