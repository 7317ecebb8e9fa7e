//! What the definitions promise.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use metrics_exporter_prometheus::PrometheusBuilder;

use super::definitions::{Kind, Values};
use super::reference::reference;
use super::route::RouteMetrics;
use super::{engine, recorder};

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[test]
fn the_reference_page_is_what_the_definitions_say() {
    let path = repository("docs/metrics.md");
    let page = reference();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &page).unwrap();
    }
    let checked_in = fs::read_to_string(&path).unwrap_or_default();
    assert!(checked_in == page, "run the tests with UPDATE_DOCS=1 and look at what changed");
}

/// <https://prometheus.io/docs/practices/naming/>
#[test]
fn names_follow_the_conventions() {
    let mut names = HashSet::new();
    for metric in recorder::all() {
        let name = metric.name;
        let word = |text: &str| {
            text.starts_with(|first: char| first.is_ascii_lowercase())
                && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        };
        assert!(names.insert(name), "{name} is defined twice");
        assert!(word(name), "{name}");
        assert!(name.starts_with("tidegate_") || name.starts_with("process_"), "{name}");
        for wrong in [
            "_milliseconds",
            "_ms",
            "_minutes",
            "_kilobytes",
            "_percent",
            "_count",
            "_sum",
            "_bucket",
        ] {
            assert!(
                !name.trim_end_matches("_total").ends_with(wrong),
                "{name}: a base unit is used"
            );
        }
        assert_eq!(metric.kind == Kind::Counter, name.ends_with("_total"), "{name}");
        if let Kind::Histogram(buckets) = metric.kind {
            assert!(name.ends_with("_seconds") || name.ends_with("_bytes"), "{name} has no unit");
            assert!(
                buckets.is_sorted_by(|a, b| a < b) && (8..=16).contains(&buckets.len()),
                "{name}"
            );
        }
        let help = metric.help();
        assert!(help.ends_with('.') && help.len() > 10 && !help.contains('|'), "{name}: {help:?}");
        for (label, values) in metric.labels {
            assert!(word(label) && !["le", "job", "instance"].contains(label), "{name}: {label}");
            let Values::Words(lists) = values else { continue };
            let all = lists.concat();
            assert!(all.len() > 1 && all.iter().all(|value| !value.is_empty()), "{name}: {label}");
            assert_eq!(
                all.iter().collect::<HashSet<_>>().len(),
                all.len(),
                "{name}: {label} {all:?}"
            );
        }
    }
}

/// What the documentation speaks of exists.
#[test]
fn documents_name_only_what_is_defined() {
    let mut pages = vec![repository("README.md"), repository("CHANGELOG.md")];
    pages.extend(fs::read_dir(repository("docs")).unwrap().map(|entry| entry.unwrap().path()));
    for page in pages.iter().filter(|page| page.extension().is_some_and(|end| end == "md")) {
        let text = fs::read_to_string(page).unwrap();
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for word in words.filter(|word| word.starts_with("tidegate_") && !word.ends_with('_')) {
            let whole =
                ["_bucket", "_sum", "_count"].iter().find_map(|part| word.strip_suffix(part));
            let known =
                recorder::all().any(|metric| [word, whole.unwrap_or(word)].contains(&metric.name));
            assert!(known, "{}: there is no {word}", page.display());
        }
    }
}

fn sources(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            found.push((path, text));
        }
    }
}

/// The compiler holds every use to a definition; what it cannot see is a definition that nobody uses, and
/// a way around them.
#[test]
fn every_definition_is_used_and_nothing_else_is() {
    let mut found = Vec::new();
    sources(&repository("src"), &mut found);
    let own = Path::new(file!());
    let found: Vec<_> = found.into_iter().filter(|(path, _)| !path.ends_with(own)).collect();
    let mut defined = 0;
    for (path, text) in &found {
        for way_around in ["counter!(", "gauge!(", "histogram!("] {
            assert!(
                !text.contains(way_around),
                "{}: {way_around}…) defines nothing",
                path.display()
            );
        }
        for line in text.lines() {
            let Some((name, rest)) = line.trim_start().split_once(" = ") else { continue };
            let kinds = ["counter \"", "gauge \"", "histogram \""];
            if !kinds.iter().any(|kind| rest.starts_with(kind)) || name.starts_with("//") {
                continue;
            }
            defined += 1;
            let uses = [format!("{name}.at("), format!("{name}.get()"), format!("{name}.write(")];
            let used = found.iter().any(|(_, text)| uses.iter().any(|used| text.contains(used)));
            assert!(used, "{}: {name} is defined and never counted", path.display());
        }
    }
    assert_eq!(defined, recorder::all().count(), "an area is missing in AREAS");
}

#[test]
fn series_exist_before_anything_happens() {
    let recorder = PrometheusBuilder::new().build_recorder();
    metrics::with_local_recorder(&recorder, || {
        recorder::register();
        let page = recorder.handle().render();
        for line in [
            "tidegate_deliveries_total 0\n",
            "tidegate_resumes_total{outcome=\"not_recovered\"} 0\n",
            "tidegate_api_calls_total{call=\"publish\",outcome=\"unauthorized\"} 0\n",
        ] {
            assert!(page.contains(line), "{line}{page}");
        }
        for late in ["route=", "upstream=", "connection=", "tidegate_build_info"] {
            assert!(!page.contains(late), "{late} {page}");
        }
        let _ = RouteMetrics::new("/ws/{id}");
        engine::redis_configured("engine.redis.pubsub_url");
        let page = recorder.handle().render();
        for line in [
            "tidegate_connections{route=\"/ws/{id}\"} 0\n",
            "tidegate_generations_total{route=\"/ws/{id}\",outcome=\"worker_lost\"} 0\n",
            "tidegate_redis_up{connection=\"engine.redis.pubsub_url\"} 0\n",
        ] {
            assert!(page.contains(line), "{line}{page}");
        }
    });
}
