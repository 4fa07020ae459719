"""From a study's runs to a verdict: statistics, guards, Pareto fronts, tables. Imports no torch."""
