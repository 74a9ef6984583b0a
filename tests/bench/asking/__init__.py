"""What labels are worth that `retune labels suggest` asks for, beside labels of rows drawn by chance."""
