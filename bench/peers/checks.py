"""Whether the results of a peer are right."""

import torch


class Wrong(Exception):
    pass


def worst_row(found, expected):
    """The largest error of a row, as a part of its norm."""
    return ((found.double() - expected).norm(dim=-1) / expected.norm(dim=-1)).max().item()


def errors_of(results, expected):
    """The error of each result in the first head of the first stream and in the last of the last; raises Wrong."""
    if not all(torch.isfinite(tensor).all() for tensor in results):
        raise Wrong("a result is not finite")
    errors = {}
    for which, at in (("first", 0), ("last", -1)):
        for what, found, reference, limit in expected(results, at, at):
            error = worst_row(found, reference)
            if not error <= limit:  # NaN is wrong too
                raise Wrong(f"the {what} of the {which} head is off by {error:.3g} of a row's norm, {limit} is allowed")
            errors[what] = max(error, errors.get(what, 0))
    return errors
