"""What training and judging leave behind: named by hashes, made once, published whole. Imports no torch."""
