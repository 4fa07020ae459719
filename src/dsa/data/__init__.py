"""Text and tasks: every batch is a function of (seed, stage, step), every evaluation batch is fixed."""

from dsa.data.batch import IGNORE, Batch, Source
from dsa.data.files import TextFiles
from dsa.data.hub import HubCorpus
from dsa.data.induction import Induction
from dsa.data.module import DataModule
from dsa.data.mqar import MQAR
from dsa.data.needle import Needle
from dsa.data.noise import Noise
from dsa.data.recall_slice import RecallSlice
from dsa.data.retrieval import Retrieval
from dsa.data.stdlib import StdlibCorpus
from dsa.data.text import Corpus, TextSource, Tokenizer
from dsa.data.tokenizers import BPETokenizer, ByteTokenizer, ModelTokenizer

__all__ = [
    "IGNORE",
    "MQAR",
    "BPETokenizer",
    "Batch",
    "ByteTokenizer",
    "Corpus",
    "DataModule",
    "HubCorpus",
    "Induction",
    "ModelTokenizer",
    "Needle",
    "Noise",
    "RecallSlice",
    "Retrieval",
    "Source",
    "StdlibCorpus",
    "TextFiles",
    "TextSource",
    "Tokenizer",
]
