"""What everything else stands on: parameters as a vector, gradients, verdicts on entries."""
