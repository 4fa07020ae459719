"""Several studies together: questions answered and claims evaluated, as pages that quote only what was measured."""
