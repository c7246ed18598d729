"""Metric families as plain records: how those of several processes become one, and how Prometheus reads them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

import msgspec
from prometheus_client import Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.exposition import generate_latest as plain_text
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST as OPEN_METRICS
from prometheus_client.openmetrics.exposition import generate_latest as open_metrics
from prometheus_client.registry import Collector

from klines.tally import Spread

Kind = Literal["counter", "gauge", "histogram"]
Across = Literal["sum", "max", "min"]
Labels = dict[str, str]


class Sample(NamedTuple):
    """One number of a family; `name` is the family's with a suffix."""

    name: str
    labels: Labels
    value: float


class Family(msgspec.Struct, array_like=True):
    """A metric; `across` says what the gauges of several processes are together. Counters and histograms are sums."""

    name: str
    kind: Kind
    told: str
    samples: list[Sample]
    across: Across = "sum"


def gauge(name: str, told: str, value: float, across: Across = "sum", **labels: str) -> Family:
    """A gauge with one sample."""
    return Family(name, "gauge", told, [Sample(name, labels, float(value))], across)


def gauges(name: str, told: str, label: str, values: dict[str, float], across: Across = "sum") -> Family:
    """A gauge with a sample for each value of a label."""
    return Family(name, "gauge", told, [Sample(name, {label: key}, value) for key, value in values.items()], across)


def counter(name: str, told: str, value: float) -> Family:
    """A counter; its name is without `_total`."""
    return Family(name, "counter", told, [Sample(f"{name}_total", {}, value)])


def histogram(name: str, told: str, spread: Spread) -> Family:
    """A histogram of what somebody counted without Prometheus."""
    samples = []
    count = 0
    for bound, of_bound in zip([*map(float, spread.bounds), "+Inf"], spread.counts, strict=True):
        count += of_bound
        samples.append(Sample(f"{name}_bucket", {"le": str(bound)}, count))
    samples += [Sample(f"{name}_count", {}, count), Sample(f"{name}_sum", {}, spread.total)]
    return Family(name, "histogram", told, samples)


def together(everyone: Iterable[Sequence[Family]]) -> list[Family]:
    """The families of several processes as one."""
    found: dict[str, Family] = {}
    values: dict[str, dict[tuple[str, frozenset[tuple[str, str]]], Sample]] = {}
    for families in everyone:
        for family in families:
            found.setdefault(family.name, family)
            known = values.setdefault(family.name, {})
            for sample in family.samples:
                key = (sample.name, frozenset(sample.labels.items()))
                before = known.get(key)
                known[key] = sample if before is None else sample._replace(value=_one(family, before, sample))
    return [msgspec.structs.replace(one, samples=_ordered(values[name].values())) for name, one in found.items()]


def _one(family: Family, before: Sample, sample: Sample) -> float:
    both = (before.value, sample.value)
    if family.kind == "gauge" and family.across != "sum":
        return max(both) if family.across == "max" else min(both)
    return sum(both)


def _ordered(samples: Iterable[Sample]) -> list[Sample]:
    # The samples of one histogram must stand together, wherever each process began to count.
    groups: dict[frozenset[tuple[str, str]], list[Sample]] = {}
    for sample in samples:
        of = frozenset(item for item in sample.labels.items() if item[0] != "le")
        groups.setdefault(of, []).append(sample)
    return [sample for group in groups.values() for sample in group]


def exposed(families: Sequence[Family], *, openmetrics: bool) -> tuple[bytes, str]:
    """The text that Prometheus reads, and its media type."""
    if openmetrics:
        return open_metrics(_Given(families)), OPEN_METRICS  # type: ignore[no-untyped-call]
    return plain_text(_Given(families)), CONTENT_TYPE_PLAIN_0_0_4


class _Given(Collector):
    def __init__(self, families: Sequence[Family]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        for family in self._families:
            metric = Metric(family.name, family.told, family.kind)
            for sample in family.samples:
                metric.add_sample(*sample)
            yield metric
