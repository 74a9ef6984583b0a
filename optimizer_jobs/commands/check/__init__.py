"""The check Job: it judges one window of production data by drift, schema violations and quality."""
