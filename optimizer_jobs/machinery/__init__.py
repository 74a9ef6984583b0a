"""What techniques are made of: training, compression, attacks, formats of delivery. Nothing is chosen here."""
