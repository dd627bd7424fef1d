"""The networks and methods of the results table, and the registry that names them."""
