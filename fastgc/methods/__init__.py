"""The ways to get gradapprox, one file for each."""
