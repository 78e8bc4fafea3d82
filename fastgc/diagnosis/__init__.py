"""What a wrong gradient looks like, and where the mistake starts."""
