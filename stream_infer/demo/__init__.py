"""The flight example from nothing to live predictions, and its full evaluation."""
