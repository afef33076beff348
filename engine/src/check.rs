//! `orbit-broker check`: verifies a store that nobody has open: every record, every companion, what files are there.
//!
//! The log is read from its first byte to its last, and from it, segment by segment, what the companions must say.
//! It is never written, and nothing else unless asked: `repair` makes again what is derived from it. Stores of RocketMQ are read by RocketMQ's
//! rules. What the broker's own tables say is looked at by the server.

mod companions;
mod log;
mod report;

use crate::config::Config;
use crate::layout::Layout;
use crate::queue::Registry;
use crate::recovery::Progress;
use crate::recovery::files::{self, FoundFile, Problem};
use crate::store::{self, OpenError};
use companions::Companions;
use log::LogCheck;
use reactor::fs::{self, LockFile};
pub use report::{Finding, Repair, Report, Severity};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Which store, and whether to repair it.
#[derive(Clone, Debug)]
pub struct Request {
    pub root: PathBuf,
    /// Empty: `root/commitlog`.
    pub log_dirs: Vec<PathBuf>,
    pub repair: bool,
}

/// Why a store cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum CannotCheck {
    #[error("{0}: there is no store; name the directory that holds commitlog/")]
    NoStore(PathBuf),
    #[error("{path}: process {holder} has this store open; stop it first")]
    InUse { path: PathBuf, holder: String },
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
}

impl CannotCheck {
    fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> CannotCheck {
        let path = path.into();
        move |source| CannotCheck::Io { path, source }
    }
}

/// Looks at everything. Runs on a core of its own.
pub async fn check(
    request: &Request,
    mut progress: impl FnMut(Progress),
) -> Result<Report, CannotCheck> {
    let mut config = Config::for_root(&request.root);
    config.log_dirs.clone_from(&request.log_dirs);
    let log_dirs = Layout::new(&config).log_dirs().to_vec();
    if !log_dirs.iter().any(|dir| fs::exists(dir)) {
        return Err(CannotCheck::NoStore(request.root.clone()));
    }
    let _lock = lock(&Layout::new(&config), request.repair).await?;
    let mut report = Report::default();
    let found = files::segment_bytes(&log_dirs).map_err(CannotCheck::io(&request.root))?;
    let Some(segment_bytes) = found else {
        report.note(&request.root, None, "the log is empty");
        return Ok(report);
    };
    config.segment_bytes = segment_bytes;
    let layout = Arc::new(Layout::new(&config));
    let dirs: Vec<PathBuf> = log_dirs.into_iter().filter(|dir| fs::exists(dir)).collect();
    let files = files::find(&dirs, segment_bytes).map_err(CannotCheck::io(&request.root))?;
    for problem in &files.problems {
        report_problem(problem, &mut report);
    }
    let whole = |file: &&FoundFile| file.bytes == segment_bytes;
    let files: Vec<FoundFile> = files.files.iter().filter(whole).cloned().collect();
    report.segments = files.len() as u64;
    report.segment_bytes = segment_bytes;
    report.rocketmqs = files::is_rocketmqs(&layout, &files);
    let rocketmqs_until = files::rocketmqs_until(&layout, &files);
    report.closed = !fs::exists(&layout.abort());
    if !report.closed {
        let what = "the store was not closed in order; the next start recovers it";
        report.note(&layout.abort(), None, what);
    }
    let registry = Arc::new(Registry::default());
    let companions = Companions::new(layout.clone(), registry.clone(), request.repair);
    companions.look_around(&files, &mut report)?;
    let mut log = LogCheck::new(registry.clone(), &files, rocketmqs_until, &companions);
    log.run(&mut report, &mut progress).await?;
    report.queues = registry
        .sorted()
        .iter()
        .map(|queue| {
            let name = (queue.topic().to_owned(), queue.id());
            (name, queue.min_offset()..queue.max_offset())
        })
        .collect();
    Ok(report)
}

/// Keeps a broker from opening the store meanwhile. Who only looks leaves no trace, and needs no lock where nobody ever
/// had the store open, or where it cannot be read.
async fn lock(layout: &Layout, repair: bool) -> Result<Option<LockFile>, CannotCheck> {
    let locked = match repair {
        true => store::lock(layout).await.map(Some),
        false => store::lock_to_look(layout).await,
    };
    match locked {
        Ok(lock) => Ok(lock),
        Err(OpenError::InUse { path, holder }) => Err(CannotCheck::InUse { path, holder }),
        Err(OpenError::Io { source, .. })
            if !repair && source.kind() == io::ErrorKind::PermissionDenied =>
        {
            Ok(None)
        }
        Err(OpenError::Io { path, source }) => Err(CannotCheck::Io { path, source }),
        Err(other) => Err(CannotCheck::Io {
            path: layout.lock(),
            source: io::Error::other(other),
        }),
    }
}

fn report_problem(problem: &Problem, report: &mut Report) {
    const BY_HAND: &str = "has to be done by hand";
    let (path, what, advice) = match problem {
        Problem::Foreign(path) => (
            path,
            "this is not a log file".to_owned(),
            "move it out of the log directory",
        ),
        Problem::Double(path) => (
            path,
            "this log file is there twice".to_owned(),
            "move one of them out of the log directory",
        ),
        Problem::Overlaps(path) => (
            path,
            "its name lies inside the log file before it".to_owned(),
            "move it out of the log directory",
        ),
        Problem::Missing(path) => (
            path,
            "this log file is missing, but there are files before and after it".to_owned(),
            "bring it back from a copy, or move away the files before it",
        ),
        Problem::WrongLength {
            path,
            found,
            expected,
        } => (
            path,
            format!("the file has {found} bytes, the others have {expected}"),
            BY_HAND,
        ),
        Problem::Unfinished(path) => {
            let what = "an empty log file, left by a process that died; the next start removes it";
            return report.note(path, None, what);
        }
    };
    report.problem(path, None, what, Repair::Impossible(advice));
}
