//! file: the pods of a whole file of YAML documents.
//!
//! A document without pods, or whose pods stay as they are, comes out as it was written. One that
//! changes is written anew: its keys in the order of their names, as `kubectl get -o yaml` has them, and
//! without its comments.

use policy::limits;
use serde_json::Value;

use super::{Settings, Surroundings, Verdict, inject_document};
use crate::document::split;

/// What became of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct InjectedFile {
    /// All its documents, in their order.
    pub text: String,
    /// `Deployment shop/orders` and what became of its pods, in the order they stand.
    pub verdicts: Vec<(String, Verdict)>,
}

/// Why a file cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// Too long.
    #[error("it has more than {} bytes: split it", limits::MANIFEST_BYTES_MAX)]
    TooLong,
    /// A document is not YAML.
    #[error("line {line}: this document is not YAML: {message}")]
    Yaml {
        /// The line its document begins on, counted from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// A document cannot be written.
    #[error("line {line}: this document cannot be written again: {message}")]
    Print {
        /// The line its document begins on, counted from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
}

/// Gives every pod and pod template of a file its sidecar.
///
/// # Errors
/// [`FileError`]: the first document that cannot be read; nothing can be said of the whole then.
pub fn inject_file(
    text: &str,
    around: &Surroundings,
    settings: &Settings,
) -> Result<InjectedFile, FileError> {
    if text.len() as u64 > limits::MANIFEST_BYTES_MAX {
        return Err(FileError::TooLong);
    }
    let (mut texts, mut verdicts) = (Vec::new(), Vec::new());
    for (line, document) in split(text) {
        let value = read(&document).map_err(|message| FileError::Yaml { line, message })?;
        let done = inject_document(&value, around, settings);
        texts.push(if done.value == value {
            document
        } else {
            print(&done.value).map_err(|message| FileError::Print { line, message })?
        });
        verdicts.extend(done.verdicts);
    }
    Ok(InjectedFile { text: texts.join("---\n"), verdicts })
}

/// As Kubernetes reads it: `defaultMode: 0644` is an octal number there.
fn read(document: &str) -> Result<Value, String> {
    let options = serde_saphyr::options! { legacy_octal_numbers: true };
    serde_saphyr::from_str_with_options(document, options).map_err(|error| {
        let message = error.without_snippet().to_string();
        message.lines().next().unwrap_or_default().to_owned()
    })
}

/// Block style; what it would not bring back as it is comes out as JSON, which is YAML too.
fn print(value: &Value) -> Result<String, String> {
    // Long lines are kept whole: folded ones are right as well, but nobody can search for them.
    let options = serde_saphyr::ser_options! { folded_wrap_chars: usize::MAX };
    let text = serde_saphyr::to_string_with_options(value, options).map_err(|error| error.to_string())?;
    let text = if text.ends_with('\n') { text } else { text + "\n" };
    if read(&text).as_ref() == Ok(value) {
        return Ok(text);
    }
    serde_json::to_string_pretty(value).map(|json| json + "\n").map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enabled() -> Surroundings {
        Surroundings { namespace_says: Some("enabled".to_owned()), server_minor: None }
    }

    fn injected(text: &str) -> InjectedFile {
        inject_file(text, &enabled(), &Settings::built_in().unwrap()).unwrap()
    }

    const FILE: &str = "\
# Of no pod.
apiVersion: v1
kind: Service
metadata: {name: orders}   # kept as it is written
spec: {ports: [{port: 80}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: orders, namespace: shop}
spec:
  template:
    metadata:
      labels: {version: \"80\", on: \"yes\", empty: \"\"}
    spec:
      containers:
      - name: app
        image: app
        args: ['1.50', \"0644\", 'true', '~', \"a: b\", '# no comment', \" led\"]
        env:
        - {name: LINES, value: \"one\\ntwo\\n\"}
        - {name: LONG, value: \"wwwwwwwwwwwwwwwwwwwwwwwwwwwww  xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx   yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy zz\"}
        ports: [{containerPort: 80}]
      volumes:
      - name: scripts
        configMap: {name: scripts, defaultMode: 0644}
";

    #[test]
    fn what_has_no_pods_comes_out_as_it_was_written() {
        let file = injected(FILE);
        assert!(file.text.starts_with("apiVersion: v1\nkind: Service\nmetadata: {name: orders}   # kept as"));
        assert_eq!(file.verdicts.len(), 1);
        assert_eq!(file.verdicts[0].0, "Deployment shop/orders");
    }

    #[test]
    fn text_stays_text_and_numbers_stay_numbers() {
        let file = injected(FILE);
        let printed = file.text.split("---\n").nth(1).unwrap();
        let value = read(printed).unwrap();
        let template = &value["spec"]["template"];
        let labels = &template["metadata"]["labels"];
        assert_eq!(
            (&labels["version"], &labels["on"], &labels["empty"]),
            (&"80".into(), &"yes".into(), &"".into())
        );
        let app = &template["spec"]["containers"][0];
        let args = serde_json::json!(["1.50", "0644", "true", "~", "a: b", "# no comment", " led"]);
        assert_eq!(app["args"], args);
        assert_eq!(app["env"][0]["value"], "one\ntwo\n");
        assert_eq!(app["ports"][0]["containerPort"], 80);
        assert_eq!(template["spec"]["volumes"][0]["configMap"]["defaultMode"], 0o644);
        assert!(printed.starts_with("apiVersion: "), "block style: {printed}");
    }

    #[test]
    fn a_second_injection_of_a_file_changes_nothing() {
        let once = injected(FILE);
        let twice = injected(&once.text);
        assert_eq!(twice.text, once.text);
    }

    #[test]
    fn what_is_not_yaml_is_told_with_its_line() {
        let file = "kind: Pod\n---\nkind: [";
        let error = inject_file(file, &enabled(), &Settings::built_in().unwrap()).unwrap_err();
        assert!(error.to_string().starts_with("line 3: this document is not YAML: "), "{error}");
    }
}
