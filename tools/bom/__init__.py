"""What an image is made of and how it was built, as documents for scanners and auditors; nothing is signed here."""
