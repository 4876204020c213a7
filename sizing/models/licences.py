"""What a licence id of the hub means for a business. Not legal advice: the verdict says where to look twice."""

from __future__ import annotations

from sizing.models.facts import LicenceVerdict

LICENCES: dict[str, tuple[str, LicenceVerdict, str]] = {
    "apache-2.0": (
        "Apache-2.0",
        "business-friendly",
        "Apache-2.0: use, change and sell freely; keep the notices, patents are granted.",
    ),
    "mit": ("MIT", "business-friendly", "MIT: use, change and sell freely; keep the copyright notice."),
    "bsd-3-clause": (
        "BSD-3-Clause",
        "business-friendly",
        "BSD: use, change and sell freely; keep the copyright notice.",
    ),
    "cc-by-4.0": ("CC-BY-4.0", "business-friendly", "CC-BY-4.0: use, change and sell freely; name the authors."),
    "cc-by-sa-4.0": (
        "CC-BY-SA-4.0",
        "conditions",
        "CC-BY-SA: commercial use is allowed; what is derived must carry the same licence.",
    ),
    "cc-by-nc-4.0": ("CC-BY-NC-4.0", "non-commercial", "Creative Commons non-commercial: no use in a business."),
    "cc-by-nc-sa-4.0": ("CC-BY-NC-SA-4.0", "non-commercial", "Creative Commons non-commercial: no use in a business."),
    "openrail": ("OpenRAIL", "conditions", "Commercial use is allowed; its use restrictions apply and are passed on."),
    "bigscience-bloom-rail-1.0": (
        "BigScience BLOOM RAIL 1.0",
        "conditions",
        "Commercial use is allowed; its use restrictions apply and are passed on.",
    ),
    "bigcode-openrail-m": (
        "BigCode OpenRAIL-M",
        "conditions",
        "Commercial use is allowed; its use restrictions apply and are passed on.",
    ),
    "llama2": ("Llama 2 Community License", "conditions", "Commercial use below 700 million monthly users."),
    "llama3": ("Llama 3 Community License", "conditions", "Commercial use below 700 million monthly users."),
    "llama3.1": ("Llama 3.1 Community License", "conditions", "Commercial use below 700 million monthly users."),
    "llama3.2": ("Llama 3.2 Community License", "conditions", "Commercial use below 700 million monthly users."),
    "llama3.3": ("Llama 3.3 Community License", "conditions", "Commercial use below 700 million monthly users."),
    "gemma": ("Gemma Terms of Use", "conditions", "Commercial use; Google's prohibited use policy applies."),
}
"""Licence id as model cards of the hub write it -> name, verdict, reason."""
