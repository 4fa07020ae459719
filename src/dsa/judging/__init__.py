"""What is measured of a model as it is: quality, selection, cost and speed. Nothing is trained."""
