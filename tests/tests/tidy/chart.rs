//! chart: the chart, the image and the programs speak of the same things.

use std::collections::BTreeSet;

use crate::house::{expect_none, read};

const DASHBOARD: &str = "charts/tidegate/files/dashboard.json";
const METRICS: &str = "docs/metrics.md";

/// The words `tidegate_…` of a text, without what a histogram or counter ends with.
fn metrics(text: &str) -> BTreeSet<String> {
    let word = |rest: &str| -> String {
        rest.chars().take_while(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '_').collect()
    };
    let base = |name: String| {
        let ends = ["_bucket", "_sum", "_count", "_total"];
        ends.iter().find_map(|end| name.strip_suffix(end).map(str::to_owned)).unwrap_or(name)
    };
    text.match_indices("tidegate_").map(|(at, _)| base(word(&text[at..]))).collect()
}

#[test]
fn dashboard_shows_only_metrics_that_are_there() {
    let known = metrics(&read(METRICS));
    let shown = metrics(&read(DASHBOARD));
    assert!(shown.len() > 20, "the dashboard shows {} metrics", shown.len());
    let unknown: Vec<String> = shown.difference(&known).cloned().collect();
    expect_none("a metric of the dashboard has a row in docs/metrics.md", &unknown);
}

/// The values of a `name = "…"` or `name: …` at the beginnings of lines.
fn values<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let of = |line: &'a str| Some(line.strip_prefix(name)?.trim_matches(['"', ' ']));
    text.lines().filter_map(of).collect()
}

#[test]
fn chart_has_the_version_of_the_programs() {
    let workspace = read("Cargo.toml");
    let version = values(&workspace, "version = ")[0];
    let chart = read("charts/tidegate/Chart.yaml");
    assert_eq!(values(&chart, "appVersion: "), [version], "charts/tidegate/Chart.yaml");
    assert_eq!(values(&chart, "version: "), [version], "charts/tidegate/Chart.yaml");
    assert_eq!(values(&read("Dockerfile"), "ARG VERSION="), [version], "Dockerfile");
}

#[test]
fn both_ways_to_the_image_make_the_same() {
    let (docker, buildah) = (read("Dockerfile"), read("charts/image/build.sh"));
    let labels = |text: &str| -> BTreeSet<String> {
        let found = text.match_indices("org.opencontainers.image.");
        found.map(|(at, _)| text[at..].split('\n').next().unwrap_or_default()).map(line).collect()
    };
    fn line(text: &str) -> String {
        let (name, value) = text.trim_end_matches(['\\', ' ']).split_once('=').unwrap_or((text, ""));
        // The version is each one's own variable.
        let value = if value.contains('$') { "" } else { value.trim_matches('"') };
        format!("{name}={value}")
    }
    assert_eq!(labels(&docker), labels(&buildah));
    for (in_docker, in_buildah) in [
        ("USER 2102:2102", "--user 2102:2102"),
        ("ENV PATH=/bin", "--env PATH=/bin"),
        ("WORKDIR /\n", "--workingdir / "),
        (r#"CMD ["tidegate", "--help"]"#, r#"--cmd '["tidegate", "--help"]'"#),
        ("charts/image/root.sh", "charts/image/root.sh"),
    ] {
        assert!(docker.contains(in_docker), "the Dockerfile has no {in_docker:?}");
        assert!(buildah.contains(in_buildah), "build.sh has no {in_buildah:?}");
    }
}
