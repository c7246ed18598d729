"""Scrapes, as a Prometheus server reads them."""

from __future__ import annotations

import httpx
from prometheus_client.parser import text_string_to_metric_families


class Scrape:
    """The samples of one scrape."""

    def __init__(self, text: str) -> None:
        families = list(text_string_to_metric_families(text))
        self.names = {sample.name for family in families for sample in family.samples} | {one.name for one in families}
        self.samples = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in families
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float:
        """The sum of the samples with this name that have these labels; 0 without any."""
        wanted = labels.items()
        return sum(value for (found, its), value in self.samples.items() if found == name and wanted <= its)

    def labels(self, label: str) -> set[str]:
        """The values of a label, of whatever metric."""
        return {value for _, its in self.samples for name, value in its if name == label}


async def scrape(client: httpx.AsyncClient) -> Scrape:
    """The metrics of a service."""
    answer = await client.get("/metrics")
    assert answer.status_code == 200, answer.text
    return Scrape(answer.text)
