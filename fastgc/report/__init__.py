"""What a check found, and how it looks."""
