"""The kinds of network that can be stacked; each satisfies `network.Network`."""
