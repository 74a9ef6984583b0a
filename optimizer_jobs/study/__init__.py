"""The study of a run: its trials on disk, its objectives, and who its finalists are. What search and judge share."""
