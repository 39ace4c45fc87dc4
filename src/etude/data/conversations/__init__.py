"""Conversations to learn answers from: rows of many formats, chat templates, and which tokens are trained."""
