//! figures: what a `/metrics` page says, sample by sample.

use std::collections::BTreeMap;

/// The samples of one page.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    samples: Vec<Sample>,
}

/// One line of it.
#[derive(Debug)]
pub(crate) struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    /// The value.
    pub(crate) value: f64,
}

impl Sample {
    /// A label's value; empty when there is no such label.
    pub(crate) fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }
}

impl Figures {
    /// Reads the Prometheus text format; a line that is none is skipped.
    pub(crate) fn read(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        Self { samples: lines.filter_map(sample).collect() }
    }

    /// The samples of one name.
    pub(crate) fn of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Sample> {
        self.samples.iter().filter(move |sample| sample.name == name)
    }

    /// The values of one name summed up by what `key` gives; zeros are left out.
    pub(crate) fn by<K: Ord>(&self, name: &str, key: impl Fn(&Sample) -> K) -> BTreeMap<K, f64> {
        let mut sums = BTreeMap::new();
        for sample in self.of(name).filter(|sample| sample.value > 0.0) {
            *sums.entry(key(sample)).or_default() += sample.value;
        }
        sums
    }
}

fn sample(line: &str) -> Option<Sample> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            rest = rest.trim_start_matches([',', ' ']);
            if let Some(after) = rest.strip_prefix('}') {
                rest = after;
                break;
            }
            let (label, after) = rest.split_once("=\"")?;
            let (value, after) = quoted(after)?;
            labels.insert(label.to_owned(), value);
            rest = after;
        }
    }
    // A timestamp or an exemplar may follow.
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Sample { name: name.to_owned(), labels, value })
}

/// The text up to the closing quote, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_with_quotes_commas_and_braces_are_read_whole() {
        let page = "# HELP a b\na_total{x=\"1,\\\"}\",y=\"z\"} 3 # {} 1\na_total{x=\"2\"} 4.5\nb 1\nnonsense\nc{x=\"\n";
        let figures = Figures::read(page);
        let by_x = figures.by("a_total", |sample| sample.label("x").to_owned());
        assert_eq!(by_x.into_iter().collect::<Vec<_>>(), [("1,\"}".to_owned(), 3.0), ("2".to_owned(), 4.5)]);
        assert_eq!(figures.of("b").map(|sample| sample.value).sum::<f64>(), 1.0);
        assert_eq!(figures.of("b").next().map(|sample| sample.label("x").len()), Some(0));
        assert_eq!(figures.of("c").count(), 0);
    }
}
