"""Saving how far a run is, and going on from there as if nothing had been."""
