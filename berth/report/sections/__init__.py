"""One file a part of the report: each makes a `Section` from the documents, or None where they say nothing about it."""
