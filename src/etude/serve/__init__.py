"""The studio's server: it reads run folders, serves the page, and passes questions to a worker process.

Only :mod:`etude.serve.answers` and :mod:`etude.serve.worker`, which run in that process, import torch.
"""
