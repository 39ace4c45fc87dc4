"""The network: its forward pass, initialisation, cost, and the model folder that it is saved in."""
