// Nothing is called from here: see sanitizer.c.
