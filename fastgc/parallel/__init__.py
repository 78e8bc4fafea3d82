"""Work shared between threads and the workers of executors; it knows nothing of gradients."""
