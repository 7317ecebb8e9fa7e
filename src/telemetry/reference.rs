//! The reference page of all metrics, made from their definitions. A test holds docs/metrics.md to it.

use super::definitions::{Appears, Configured, Definition, Kind, Values};
use super::recorder::{self, AREAS};

const INTRODUCTION: &str = include_str!("reference.md");

/// How the metrics are scraped, then a table for each area.
pub(super) fn reference() -> String {
    let mut page = INTRODUCTION.to_owned();
    for (headline, metrics) in AREAS {
        page.push_str(&format!(
            "\n## {headline}\n\n| metric | kind | labels | meaning |\n|---|---|---|---|\n"
        ));
        page.extend(metrics.iter().map(|metric| row(metric)));
    }
    page.push_str("\n## Buckets\n\n| histogram | upper bounds in seconds |\n|---|---|\n");
    for metric in recorder::all() {
        if let Kind::Histogram(buckets) = metric.kind {
            let bounds: Vec<_> = buckets.iter().map(f64::to_string).collect();
            page.push_str(&format!("| `{}` | {} |\n", metric.name, bounds.join(", ")));
        }
    }
    page
}

fn row(metric: &Definition) -> String {
    let kind = metric.kind.name();
    let late = if metric.appears == Appears::Late { ", *late*" } else { "" };
    let labels: Vec<_> = metric.labels.iter().map(|(name, values)| label(name, *values)).collect();
    format!("| `{}` | {kind}{late} | {} | {} |\n", metric.name, labels.join("<br>"), metric.help())
}

fn label(name: &str, values: Values) -> String {
    let words = match values {
        Values::Words(lists) => {
            lists.concat().iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
        }
        Values::Configured(Configured::Route) => "a route".to_owned(),
        Values::Configured(Configured::Upstream) => "an upstream".to_owned(),
        Values::Configured(Configured::Redis) => "a Redis".to_owned(),
        Values::Fixed(what) => what.to_owned(),
    };
    format!("`{name}`: {words}")
}
