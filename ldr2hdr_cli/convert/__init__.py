"""From inputs to results: what is still to do, the threads that do it, and what is told of it."""
