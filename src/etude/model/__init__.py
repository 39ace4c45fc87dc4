"""The network: what it computes, how it starts, what it costs, and the folder it is saved in."""
