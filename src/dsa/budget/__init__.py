"""How few keys a model can live on, before any indexer is trained: loss and captured attention by budget."""
