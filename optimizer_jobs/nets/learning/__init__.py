"""Training of networks: epochs, losses, lessons of a teacher, changed copies of rows."""
