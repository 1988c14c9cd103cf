"""A simulator of its own for the sample data: nothing but numpy, scipy's filters and a seed goes in.

Draws are standard normal and scaled afterwards: a difference in a last digit, on another machine, changes a pixel by
one step at most, never the course of the random numbers.
"""
