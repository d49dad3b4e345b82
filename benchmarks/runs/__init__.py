"""The files of a run on disk, and their readers."""
