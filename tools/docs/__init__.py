"""What keeps the documentation true: references that are generated from the code, and a check of every link."""
