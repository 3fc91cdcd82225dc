"""Models as files of other runtimes."""
