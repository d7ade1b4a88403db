"""Example topologies, each a module to copy from."""
