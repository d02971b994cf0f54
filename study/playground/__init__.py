"""The playground of notebook 00: its network, its widgets, and their side in the browser."""
