"""What an attempt does: one module per kind of task."""
