"""Fixtures that every test may use: the real servers, and names of a test's own."""

pytest_plugins = ["tests.servers.fixtures"]
