//! errors: an error told with its causes.

use std::error::Error;

/// An error and its sources in one line. Some libraries say in an error's text what its source says
/// again; that is told once.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.ends_with(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        source = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Told {
        text: &'static str,
        source: Option<Box<Told>>,
    }

    fn told(texts: &[&'static str]) -> Told {
        let (text, rest) = texts.split_first().unwrap();
        Told { text, source: (!rest.is_empty()).then(|| Box::new(told(rest))) }
    }

    #[test]
    fn an_error_is_told_with_its_causes_and_each_of_them_once() {
        for (texts, line) in [
            (&["no connection"][..], "no connection"),
            (&["no connection", "no answer", "timed out"], "no connection: no answer: timed out"),
            (&["no connection: no answer", "no answer", "timed out"], "no connection: no answer: timed out"),
        ] {
            assert_eq!(chain(&told(texts)), line);
        }
    }
}
