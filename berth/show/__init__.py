"""Results drawn for people: tables and lines on a console, one module a kind of result."""
