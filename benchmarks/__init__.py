"""How fast it is: programs that measure, run by `make bench`; never timed tests."""
