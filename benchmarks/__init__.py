"""Time and memory of the networks and of data preparation, against plain formulations."""
