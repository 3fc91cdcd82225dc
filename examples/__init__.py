"""Programs that go through the library from end to end."""
