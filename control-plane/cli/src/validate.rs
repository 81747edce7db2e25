//! validate: manifests read as the controller reads them, before it does.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use policy::limits;
use resources::{Located, Object, Problem, parse_file, validate_all};

use crate::print::count;

/// Exit code when a file cannot be read: nothing can be said about it.
const UNREADABLE: u8 = 2;

/// Reads manifests as the controller would and names what is wrong with them.
///
/// Exits 0 when nothing is, 1 with problems, 2 when a file cannot be read.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate validate manifests/demo            every .yaml, .yml and .json in a directory
  tidegate validate a.yaml b.yaml             checked together, as if in one directory
  helm template shop ./chart | tidegate validate -
  tidegate validate --json manifests/ | jq '.problems[].message'")]
pub(crate) struct Validate {
    /// Files, directories, or - for standard input.
    #[arg(required = true, value_name = "FILE|DIR")]
    paths: Vec<PathBuf>,
    /// Print {documents, files, problems: [{file, line, object, field, message}]}.
    #[arg(long)]
    json: bool,
}

#[derive(Default)]
struct Seen {
    files: usize,
    documents: usize,
    objects: Vec<Located<Object>>,
    problems: Vec<Problem>,
    unreadable: bool,
}

impl Validate {
    pub(crate) fn run(self) -> ExitCode {
        let mut seen = Seen::default();
        for path in &self.paths {
            if let Err(error) = seen.path(path) {
                eprintln!("tidegate: cannot read {}: {error}", path.display());
                seen.unreadable = true;
            }
        }
        seen.problems.extend(validate_all(&seen.objects));
        seen.problems.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
        if self.json {
            seen.print_json()
        } else {
            seen.print()
        }
        match (seen.unreadable, seen.problems.is_empty()) {
            (true, _) => ExitCode::from(UNREADABLE),
            (false, false) => ExitCode::FAILURE,
            (false, true) => ExitCode::SUCCESS,
        }
    }
}

impl Seen {
    fn path(&mut self, path: &Path) -> std::io::Result<()> {
        if path == Path::new("-") {
            self.text("-", &read(std::io::stdin())?);
        } else if path.is_dir() {
            for file in manifests_in(path)? {
                self.text(&file.display().to_string(), &read(std::fs::File::open(&file)?)?);
            }
        } else {
            self.text(&path.display().to_string(), &read(std::fs::File::open(path)?)?);
        }
        Ok(())
    }

    fn text(&mut self, name: &str, text: &str) {
        let (objects, problems) = parse_file(name, text);
        self.files += 1;
        self.documents += objects.len() + problems.len();
        self.objects.extend(objects);
        self.problems.extend(problems);
    }

    fn print(&self) {
        for problem in &self.problems {
            println!("{problem}");
        }
        println!(
            "{} in {}, {}",
            count(self.documents, "document"),
            count(self.files, "file"),
            count(self.problems.len(), "problem")
        );
    }

    fn print_json(&self) {
        let (documents, files, problems) = (self.documents, self.files, &self.problems);
        println!("{:#}", serde_json::json!({ "documents": documents, "files": files, "problems": problems }));
    }
}

/// One byte more than allowed, so that the parser sees that it is too long.
fn read(from: impl std::io::Read) -> std::io::Result<String> {
    let mut text = String::new();
    from.take(limits::MANIFEST_BYTES_MAX + 1).read_to_string(&mut text)?;
    Ok(text)
}

/// The files of a directory that the controller would read, sorted; like it, not those below.
fn manifests_in(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let hidden = path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
        let ending = path.extension().and_then(|ending| ending.to_str());
        if !hidden && path.is_file() && matches!(ending, Some("yaml" | "yml" | "json")) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
