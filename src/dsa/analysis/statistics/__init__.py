"""Tests, intervals and what seeds can show. The unit is the seed; everything here works on one number a seed."""
