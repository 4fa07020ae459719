"""Several studies together: questions answered and claims judged, as pages that quote only what was measured."""
