"""What the stored records say: the paired ledger, quality against labels, and the life of one prediction."""
