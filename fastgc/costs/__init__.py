"""What a cost is, its noise, and the step that it asks for."""
