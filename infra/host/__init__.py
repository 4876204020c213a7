"""What a host runs at its first start: shell and Python that install nothing from the internet."""
