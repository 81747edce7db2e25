//! intake: changes come in, the index follows, its documents are put in force.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use resources::Problem;
use tokio::sync::mpsc;

use crate::admin::Admin;
use crate::checks::Checks;
use crate::documents::Documents;
use crate::manifests::Loaded;
use crate::metrics::Metrics;
use crate::objects::{Change, Objects};

/// What could not be kept in step is tried again after this.
const AGAIN: Duration = Duration::from_secs(3);

/// What happened where the objects are.
#[derive(Debug)]
pub(crate) enum News {
    /// All there are.
    All(Loaded),
    /// Some that changed, and everything that is wrong now where that changed too.
    Some {
        /// What changed.
        changes: Vec<Change>,
        /// What is wrong.
        problems: Option<Vec<Problem>>,
    },
}

/// What is kept in step with the objects, beside the documents: tokens, anchors, namespaces.
pub(crate) trait Follow: Send {
    /// Takes what the objects ask for; what does not work is said in the log.
    fn follow(&mut self, documents: &Documents);

    /// Whether that did not work and is to be tried again.
    fn is_behind(&self) -> bool;
}

/// All that changes bring about.
pub(crate) struct Intake {
    documents: Arc<Documents>,
    objects: Objects,
    /// What the source says is wrong, and what is wrong between the objects beside that.
    problems: Vec<Problem>,
    between: Vec<Problem>,
    checks: Checks,
    /// Problems that stand in the log already.
    logged: HashSet<Problem>,
    trust: Box<dyn Follow>,
    admin: Arc<Admin>,
    metrics: Arc<Metrics>,
}

impl Intake {
    /// Without any object.
    pub(crate) fn new(
        documents: Arc<Documents>,
        trust: Box<dyn Follow>,
        (admin, metrics): (Arc<Admin>, Arc<Metrics>),
    ) -> Self {
        Self {
            documents,
            objects: Objects::default(),
            problems: Vec::new(),
            between: Vec::new(),
            checks: Checks::new(),
            logged: HashSet::new(),
            trust,
            admin,
            metrics,
        }
    }

    /// Takes what comes in until the source is gone.
    pub(crate) async fn run(mut self, mut news: mpsc::Receiver<News>) {
        loop {
            let told = tokio::select! {
                told = news.recv() => match told {
                    Some(told) => Some(told),
                    None => return,
                },
                between = self.checks.next(&self.objects) => {
                    self.between = between;
                    self.show();
                    continue;
                }
                () = tokio::time::sleep(AGAIN), if self.trust.is_behind() => None,
            };
            // Files are written and a large set takes its time: connections are served meanwhile.
            let taken = tokio::task::spawn_blocking(move || {
                match told {
                    Some(told) => self.take(told),
                    None => self.trust.follow(&self.documents),
                }
                self
            });
            self = match taken.await {
                Ok(intake) => intake,
                // Only a panic or the end of the runtime comes here; the last documents hold.
                Err(error) => return tracing::error!(%error, "changes are not taken any more"),
            };
        }
    }

    fn take(&mut self, news: News) {
        let changes = match news {
            News::All(loaded) => {
                self.problems = loaded.problems;
                let changes = self.objects.replace(&loaded.objects);
                let (objects, problems) = (self.objects.len(), self.problems.len());
                tracing::info!(objects, problems, "manifests taken");
                changes
            }
            News::Some { changes, problems } => {
                if let Some(problems) = problems {
                    self.problems = problems;
                }
                let changes = self.objects.take(changes);
                if !changes.is_empty() {
                    self.checks.changed();
                }
                tracing::debug!(changes = changes.len(), objects = self.objects.len(), "changes taken");
                changes
            }
        };
        if !changes.is_empty() || self.documents.generation() == 0 {
            self.put_in_force(changes);
        }
        self.show();
    }

    fn put_in_force(&mut self, changes: Vec<Change>) {
        let taken = self.documents.apply(changes);
        self.metrics.reloads.inc();
        if taken.accounts || taken.injected || taken.anchors || taken.generation == 1 {
            self.trust.follow(&self.documents);
        }
    }

    /// New problems stand in the log once, all of them at the admin port.
    fn show(&mut self) {
        let all: Vec<Problem> = self.problems.iter().chain(&self.between).cloned().collect();
        for problem in all.iter().filter(|problem| !self.logged.contains(problem)) {
            tracing::warn!("{problem}");
        }
        self.logged = all.iter().cloned().collect();
        self.admin.set(self.objects.counts().clone(), all);
    }
}
