//! settings: the injector's settings as the file has them now.

use std::path::PathBuf;
use std::sync::Arc;

use policy::limits;
use resources::inject::Settings;
use tokio::io::AsyncReadExt as _;
use tokio::sync::watch;

/// Settings that follow their file. A file that is wrong is told, and what held before holds; at the
/// start nothing did, so nothing is injected until it is right.
pub(crate) struct LiveSettings {
    file: Option<PathBuf>,
    /// What stood in the file at the start, so that no change since is missed.
    opened: Result<String, String>,
    current: watch::Sender<Result<Arc<Settings>, Arc<str>>>,
}

impl LiveSettings {
    /// Those of `file`, or the built-in ones.
    pub(crate) async fn open(file: Option<PathBuf>) -> Self {
        let text = match &file {
            Some(file) => read(file).await,
            None => Ok(String::new()),
        };
        let read = text.clone().and_then(|text| parse(&text));
        if let Err(why) = &read {
            tracing::error!(why, "the injector has no settings: no pod gets a sidecar until they are right");
        }
        let current = read.map(Arc::new).map_err(Into::into);
        Self { file, opened: text, current: watch::Sender::new(current) }
    }

    /// Those that hold now.
    ///
    /// # Errors
    /// Why none do.
    pub(crate) fn now(&self) -> Result<Arc<Settings>, String> {
        self.current.borrow().clone().map_err(|why| format!("the injector has no settings: {why}"))
    }

    /// Reads the file again when it changes, for as long as it is polled. It is looked at rather than
    /// watched, because a mounted ConfigMap changes by a link two directories up.
    pub(crate) async fn follow(&self) {
        let Some(file) = &self.file else { return std::future::pending().await };
        let mut last = self.opened.clone();
        loop {
            tokio::time::sleep(limits::FILE_POLL).await;
            let text = read(file).await;
            if text != last {
                self.take(text.clone().and_then(|text| parse(&text)));
                last = text;
            }
        }
    }

    fn take(&self, read: Result<Settings, String>) {
        match read {
            Ok(settings) => {
                tracing::info!(
                    version = settings.version,
                    image = settings.image,
                    "the injector's settings changed"
                );
                drop(self.current.send_replace(Ok(Arc::new(settings))));
            }
            Err(why) if self.current.borrow().is_ok() => {
                tracing::error!(why, "the injector's new settings are wrong: those from before hold");
            }
            Err(why) => {
                tracing::error!(why, "the injector's settings are still wrong: no pod gets a sidecar");
                drop(self.current.send_replace(Err(why.into())));
            }
        }
    }
}

async fn read(file: &PathBuf) -> Result<String, String> {
    let told = |error: std::io::Error| format!("{} cannot be read: {error}", file.display());
    let open = tokio::fs::File::open(file).await.map_err(told)?;
    let mut text = String::new();
    open.take(limits::MANIFEST_BYTES_MAX).read_to_string(&mut text).await.map_err(told)?;
    Ok(text)
}

fn parse(text: &str) -> Result<Settings, String> {
    Settings::parse(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_bad_new_file_leaves_the_old_settings_in_force() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("injection.yaml");
        std::fs::write(&file, "image: one").unwrap();
        let settings = Arc::new(LiveSettings::open(Some(file.clone())).await);
        let mut seen = settings.current.subscribe();
        let following = tokio::spawn({
            let settings = settings.clone();
            async move { settings.follow().await }
        });
        std::fs::write(&file, "image: two").unwrap();
        seen.changed().await.unwrap();
        assert_eq!(settings.now().unwrap().image, "two");
        settings.take(parse("imagination: three"));
        assert_eq!(settings.now().unwrap().image, "two");
        following.abort();
    }

    #[tokio::test]
    async fn without_settings_nothing_is_decided_until_they_are_right() {
        let folder = tempfile::tempdir().unwrap();
        let settings = LiveSettings::open(Some(folder.path().join("nothing.yaml"))).await;
        let why = settings.now().unwrap_err();
        assert!(why.contains("nothing.yaml cannot be read"), "{why}");
        settings.take(parse("workers: 0"));
        assert!(settings.now().unwrap_err().contains("workers: 0 is out of range"));
        settings.take(parse(""));
        assert!(settings.now().is_ok());
    }
}
