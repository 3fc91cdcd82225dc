"""What a model costs: multiply-adds, milliseconds, zeros."""
