"""Variants of a model that search faster: equivalent copies, their selection and their verification."""
