"""The class of an answer, by a regular expression."""

import re


def plain_class(text: str, context: str, own: str) -> str:
    """CK, PK or ND, as `jaxconf.data.statements.answer_class` has it."""
    for name, answer in (("CK", context), ("PK", own)):
        if re.match(rf"\s*{re.escape(answer)}(?![^\W_])", text, re.IGNORECASE):
            return name
    return "ND"
