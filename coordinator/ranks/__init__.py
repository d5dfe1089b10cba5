"""All ranks of one run as one: rounds out, partial sums in, added in rank order."""
