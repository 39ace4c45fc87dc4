"""The studio's server: reads run folders, serves the page, and passes questions to a worker process.

Nothing of it needs torch but :mod:`etude.serve.answers` and :mod:`etude.serve.worker`, which run in that process.
"""
