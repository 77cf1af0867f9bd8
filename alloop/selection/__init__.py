"""Selection of configurations: deviation, classes, picks; takes arrays, knows no campaigns."""
