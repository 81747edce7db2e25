//! manifests: the objects of a directory, the last good one of each kept in force.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use policy::limits;
use resources::{Located, Object, Problem, parse_file, validate_all};

/// What a directory says now.
#[derive(Debug, Clone, Default)]
pub(crate) struct Loaded {
    /// The objects in force.
    pub(crate) objects: Vec<Located<Object>>,
    /// What is wrong.
    pub(crate) problems: Vec<Problem>,
}

/// A directory that is read again and again.
pub(crate) struct Manifests {
    directory: PathBuf,
    /// Each file's text as it was last read, so that what did not change is not parsed again.
    files: BTreeMap<Arc<str>, File>,
    good: Vec<Located<Object>>,
    read_before: bool,
}

struct File {
    text: String,
    objects: Vec<Located<Object>>,
    problems: Vec<Problem>,
}

impl Manifests {
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self { directory, files: BTreeMap::new(), good: Vec::new(), read_before: false }
    }

    /// Reads the directory; `None` when nothing changed since.
    ///
    /// A document that is wrong does not take its object out of force: while it still names it, the
    /// last good one stays. One that is gone takes it out.
    ///
    /// # Errors
    /// When the directory cannot be listed; everything stays as it was.
    pub(crate) fn read(&mut self) -> std::io::Result<Option<Loaded>> {
        let (paths, mut problems) = self.list()?;
        let mut changed = !self.read_before;
        self.read_before = true;
        let names: BTreeSet<Arc<str>> = paths.iter().map(|(name, _)| name.clone()).collect();
        self.files.retain(|name, _| {
            let stays = names.contains(name);
            changed |= !stays;
            stays
        });
        for (name, path) in paths {
            match read_text(&path) {
                Ok(Some(text)) => changed |= self.take(name, text),
                Ok(None) => changed |= self.files.remove(&name).is_some(),
                Err(error) => {
                    // What cannot be read now says nothing against what it said before.
                    let message = format!("cannot be read: {error}");
                    problems.push(Problem {
                        file: name,
                        line: 1,
                        object: String::new(),
                        field: None,
                        message,
                    });
                    changed = true;
                }
            }
        }
        Ok(changed.then(|| self.collect(problems)))
    }

    fn take(&mut self, name: Arc<str>, text: String) -> bool {
        if self.files.get(&name).is_some_and(|file| file.text == text) {
            return false;
        }
        let (objects, problems) = parse_file(&name, &text);
        self.files.insert(name, File { text, objects, problems });
        true
    }

    fn collect(&mut self, mut problems: Vec<Problem>) -> Loaded {
        let mut objects: Vec<Located<Object>> = Vec::new();
        for file in self.files.values() {
            objects.extend(file.objects.iter().cloned());
            problems.extend(file.problems.iter().cloned());
        }
        let there: BTreeSet<String> = objects.iter().map(|object| object.value.id().to_string()).collect();
        let broken: BTreeSet<&str> = problems.iter().map(|problem| problem.object.as_str()).collect();
        // A document so broken that it does not say its name may be any of its file's.
        let nameless: BTreeSet<&str> = problems
            .iter()
            .filter(|problem| !problem.object.contains(' '))
            .map(|problem| &*problem.file)
            .collect();
        let kept = self.good.iter().filter(|old| {
            let id = old.value.id().to_string();
            let named = broken.contains(id.as_str()) || nameless.contains(&*old.file);
            named && !there.contains(&id)
        });
        let kept: Vec<Located<Object>> = kept.cloned().collect();
        objects.extend(kept);
        problems.extend(validate_all(&objects));
        self.good.clone_from(&objects);
        Loaded { objects, problems }
    }

    /// Files of interest by name, sorted.
    #[allow(clippy::type_complexity, reason = "read once, in the caller above")]
    fn list(&self) -> std::io::Result<(Vec<(Arc<str>, PathBuf)>, Vec<Problem>)> {
        let mut paths = Vec::new();
        let mut problems = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            if is_manifest(&path) {
                paths.push((Arc::from(path.display().to_string()), path));
            }
        }
        paths.sort();
        if paths.len() > limits::MANIFEST_FILES_MAX {
            let message = format!(
                "{} files, {} are read: the others are left out",
                paths.len(),
                limits::MANIFEST_FILES_MAX
            );
            let file = self.directory.display().to_string().into();
            problems.push(Problem { file, line: 1, object: String::new(), field: None, message });
            paths.truncate(limits::MANIFEST_FILES_MAX);
        }
        Ok((paths, problems))
    }
}

/// `*.yaml`, `*.yml`, `*.json`, but nothing hidden (editors' and kubelet's own files).
pub(crate) fn is_manifest(path: &Path) -> bool {
    let hidden = path.file_name().and_then(|name| name.to_str()).is_none_or(|name| name.starts_with('.'));
    let extension = path.extension().and_then(|extension| extension.to_str());
    !hidden && matches!(extension, Some("yaml" | "yml" | "json"))
}

/// The text of a file; `None` when it is gone or no file.
fn read_text(path: &Path) -> std::io::Result<Option<String>> {
    let file = match fs::File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    if !file.metadata()?.is_file() {
        return Ok(None);
    }
    let mut text = String::new();
    // One byte more than allowed, so that the parser sees that it is too long.
    file.take(limits::MANIFEST_BYTES_MAX + 1).read_to_string(&mut text)?;
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str, port: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{ports: [{{port: {port}}}]}}\n"
        )
    }

    fn names(loaded: &Loaded) -> Vec<String> {
        loaded.objects.iter().map(|object| object.value.id().to_string()).collect()
    }

    #[test]
    fn a_broken_document_leaves_its_last_good_object_in_force_and_a_removed_one_does_not() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a.yaml");
        let mut manifests = Manifests::new(directory.path().to_owned());
        fs::write(&file, format!("{}---\n{}", service("a", "80"), service("b", "80"))).unwrap();
        assert_eq!(names(&manifests.read().unwrap().unwrap()), ["Service shop/a", "Service shop/b"]);
        assert!(manifests.read().unwrap().is_none());

        fs::write(&file, format!("{}---\n{}", service("a", "99999"), service("b", "81"))).unwrap();
        let loaded = manifests.read().unwrap().unwrap();
        assert_eq!(names(&loaded), ["Service shop/b", "Service shop/a"]);
        assert_eq!(loaded.problems.len(), 1);
        let Object::Service(kept) = &loaded.objects[1].value else { panic!() };
        assert_eq!(kept.ports[0].port, 80);

        fs::write(&file, format!("{}---\n{}", service("a", "80]"), service("b", "81"))).unwrap();
        assert_eq!(names(&manifests.read().unwrap().unwrap()), ["Service shop/b", "Service shop/a"]);

        fs::write(&file, service("b", "81")).unwrap();
        assert_eq!(names(&manifests.read().unwrap().unwrap()), ["Service shop/b"]);
    }

    #[test]
    fn a_file_that_takes_the_place_of_another_is_seen_and_strange_files_are_not() {
        let directory = tempfile::tempdir().unwrap();
        let mut manifests = Manifests::new(directory.path().to_owned());
        assert!(manifests.read().unwrap().unwrap().objects.is_empty());
        fs::write(directory.path().join("a.yaml.tmp"), service("a", "80")).unwrap();
        fs::write(directory.path().join(".b.yaml"), service("b", "80")).unwrap();
        assert!(manifests.read().unwrap().is_none());
        fs::rename(directory.path().join("a.yaml.tmp"), directory.path().join("a.yaml")).unwrap();
        assert_eq!(names(&manifests.read().unwrap().unwrap()), ["Service shop/a"]);
    }
}
