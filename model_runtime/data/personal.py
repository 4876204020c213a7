"""What looks like personal data in a text: a hint for a person, neither complete nor certain."""

from __future__ import annotations

import re

_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})*\.[A-Za-z]{2,24}\b")
_CARD = re.compile(r"(?<![\d.,-])\d(?:[ -]?\d){12,18}(?![\d.,-]*\d)")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,4})?\b")
_PHONE = re.compile(
    r"(?<![\w.,/-])(?:\+\d{1,3}[ ./-]?(?:\(\d{1,5}\)[ ./-]?)?\d(?:[ ./-]?\d){5,12}"
    r"|\(\d{2,5}\)[ ./-]?\d(?:[ ./-]?\d){4,9}|\d{3}[-. ]\d{3}[-. ]\d{4})(?![\w-])"
)
_SSN = re.compile(r"(?<![\d-])(?!000|666|9\d\d)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\d-])")
KINDS = ("e-mail", "card number", "IBAN", "phone", "US social security number")


def personal(text: str) -> tuple[str, ...]:
    """The kinds found in `text`, each once, in the order of `KINDS`.

    Card numbers are held against the Luhn check (ISO/IEC 7812-1), IBANs against theirs (ISO 13616), so that order
    numbers rarely count.
    """
    if not any(c in "@+-.( 0123456789" for c in text):
        return ()
    found = []
    if "@" in text and _EMAIL.search(text):
        found.append("e-mail")
    if any(_luhn(m.group()) for m in _CARD.finditer(text)):
        found.append("card number")
    if any(_iban(m.group()) for m in _IBAN.finditer(text)):
        found.append("IBAN")
    if _PHONE.search(text):
        found.append("phone")
    if _SSN.search(text):
        found.append("US social security number")
    return tuple(found)


def _luhn(text: str) -> bool:
    digits = [int(c) for c in text if c.isdigit()]
    if len(set(digits)) == 1:
        return False
    total = sum(d if i % 2 == 0 else (d * 2 - 9 if d > 4 else d * 2) for i, d in enumerate(reversed(digits)))
    return total % 10 == 0


def _iban(text: str) -> bool:
    plain = text.replace(" ", "")
    if not 15 <= len(plain) <= 34:
        return False
    moved = plain[4:] + plain[:4]
    return int("".join(str(int(c, 36)) for c in moved)) % 97 == 1
