"""How long a chain of products may be, so that results keep the accuracy contract.

One chain of n equal products errs by n / 8 eps (`docs/performance.md`). Short chains are summed in registers; up to
`PLAIN_CHAINS` of them are added plainly, more with the rounding errors kept (TwoSum). Where a chain ends depends on the
position of a product in its sum alone, never on the batch or on what was skipped, so neither do the bits of a result.
"""

from __future__ import annotations

from fastdil.cuda.compiled import device_function, ops
from fastdil.problem import Problem

#: Products of a chain at precision "highest".
CHAIN_TERMS = 48
#: Chains that are added plainly: their sum then errs by (48 + 12) / 8 = 7.5 eps.
PLAIN_CHAINS = 12
#: The lower precisions allow 2**-14, 512 eps of float32: a chain of so many errs by half of that.
LONG_CHAIN_TERMS = 2048

#: How chains are added: there is only one, plainly, exactly.
SINGLE, PLAIN, EXACT = 0, 1, 2


def chain_terms(problem: Problem) -> int:
    """Products that may be added in one register."""
    return CHAIN_TERMS if problem.precision == "highest" else LONG_CHAIN_TERMS


def merging(chains: int) -> int:
    """How this many chains are added."""
    return SINGLE if chains <= 1 else PLAIN if chains <= PLAIN_CHAINS else EXACT


def error_bound(terms: int, chain: int) -> float:
    """In units of eps: the worst chain, the chains' sum, and the last rounding."""
    chains = -(-terms // chain)
    return 0.5 + min(terms, chain) / 8 + (chains / 8 if chains <= PLAIN_CHAINS else 1.5)


@device_function
def merge(totals, errors, index, part):
    """Add to one of an array of sums, and what that rounds away to its errors (TwoSum)."""
    total = ops.load(totals, index)
    summed = total + part
    added = summed - total
    ops.store(totals, index, summed)
    ops.store(errors, index, ops.load(errors, index) + ((total - (summed - added)) + (part - added)))
