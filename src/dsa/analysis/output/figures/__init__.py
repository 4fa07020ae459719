"""Figures of a study: each file says what one figure shows; forest, scatter, bars and lines draw it."""
