"""Measurements of the library: what pruning keeps, costs and saves."""
