"""Files of pretrained models: where they lie, what they hold, and how they get there. Imports no torch."""
