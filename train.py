"""Train one sparse-attention language model: python train.py indexer=h2d32 pattern=local_global"""

from dsa.doors.train import main

if __name__ == "__main__":
    main()
