"""What a study says: comparisons, ranks, fronts, the verdict on its claim, and what to know before believing it."""
