"""What stores of objects cost, and how well many workers share a search in one."""
