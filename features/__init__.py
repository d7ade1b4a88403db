"""The Feast repository of the flight example."""
