"""The study of a run, which search and judge share: its trials on disk, its objectives and its finalists."""
