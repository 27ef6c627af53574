"""The runtime: the pure core, the ports, and the loops that drive them."""
